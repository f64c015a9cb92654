"""Pages: the devices, and a command with its result."""

import json
import urllib.error
import urllib.request
import uuid

from django.conf import settings
from django.db import OperationalError, ProgrammingError
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from .models import Device, Press, Result


@never_cache  # each form has a new id: going back must not bring an old one
def devices(request):
    found = list(Device.objects.all())
    for device in found:
        device.next_id = uuid.uuid4()
    return render(request, "fleet/devices.html", {"devices": found, "online": sum(d.online for d in found)})


@require_POST
def command(request, address):
    device = get_object_or_404(Device, address=address)
    cmd, id = request.POST.get("cmd", "").strip(), request.POST.get("id", "")
    if not cmd or not is_id(id):
        return trouble(request, "There is no command to send.", status=400)
    press, _ = Press.objects.get_or_create(command_id=id, defaults={"device": device, "cmd": cmd})
    if (press.device, press.cmd) != (device, cmd):
        return trouble(request, "This page was used already. Send the command from a new one.", status=409)
    try:
        send({"id": id, "device": device.address, "cmd": cmd, "reply": True, "timeout": "5s"})
    except NotTaken as error:
        return trouble(request, str(error), status=503, press=press)
    return redirect("result", address=device.address, id=id)


def result(request, address, id):
    device = get_object_or_404(Device, address=address)
    press = Press.objects.filter(pk=id, device=device).first()
    try:
        found = Result.objects.filter(pk=id, device=address).first()
    except ProgrammingError:  # the host makes the table when it starts for the first time
        found = None
    if not press and not found:
        return trouble(request, f"There is no command {id} for {device.name}. It may have been deleted.", status=404)
    return render(request, "fleet/result.html", {"device": device, "press": press, "result": found, "id": id})


def trouble(request, text, status, press=None, refresh=False):
    return render(request, "fleet/trouble.html", {"text": text, "press": press, "refresh": refresh}, status=status)


class DatabaseDown:
    """Middleware: while the database doesn't answer, each page says so."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)

    def process_exception(self, request, exception):
        if isinstance(exception, OperationalError):
            return trouble(request, "The database doesn't answer. Nothing was sent; try again in a moment.", status=503, refresh=request.method == "GET")


def is_id(text):
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


class NotTaken(Exception):
    """The host didn't accept a command; the text is for users."""


def send(body):
    """Sends a command to the host. The host answers when RabbitMQ has the command. With the same id, a repeat does no harm."""
    request = urllib.request.Request(
        settings.PENTROUGH_URL,
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": "Bearer " + settings.PENTROUGH_TOKEN, "Idempotency-Key": body["id"]},
    )
    try:
        with urllib.request.urlopen(request, timeout=10):
            pass
    except urllib.error.HTTPError as error:
        said = error.read(1000).decode(errors="replace").strip()
        raise NotTaken(f"The host didn't take the command: {error.code} {said}") from error
    except OSError as error:  # URLError is one, too
        raise NotTaken(f"The host doesn't answer: {getattr(error, 'reason', error)}.") from error
