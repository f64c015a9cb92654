"""A web hook to try: python3 hook.py PORT. It prints each body and answers with its length."""
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

late = set()


class Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        key = self.headers["Idempotency-Key"]
        if "bad" in body:
            self.answer(422, {"error": "that is bad"})
        elif "late" in body and key not in late:
            late.add(key)
            self.answer(429, {"error": "later"}, retry_after="3")
        else:
            print(self.headers["X-Device"], body, flush=True)
            self.answer(200, {"bytes": len(body)})

    def answer(self, status, body, retry_after=None):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Hook).serve_forever()
