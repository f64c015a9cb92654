"""A Twisted server that keeps its connections. It is a peer in the benchmark of idle devices."""
import sys

from twisted.internet import epollreactor

epollreactor.install()
from twisted.internet import reactor  # noqa: E402: the reactor is chosen before it is imported
from twisted.internet.protocol import Factory  # noqa: E402
from twisted.protocols.basic import LineReceiver  # noqa: E402


class Device(LineReceiver):
    def lineReceived(self, line):
        pass


host, port = sys.argv[1].rsplit(":", 1)
reactor.listenTCP(int(port), Factory.forProtocol(Device), backlog=1024, interface=host)
reactor.run()
