"""Pages: the devices, and a command with its result."""

import json
import urllib.error
import urllib.request
import uuid

from django.conf import settings
from django.db import OperationalError, ProgrammingError
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from .models import Device, Press, Result


def devices(request):
    found = list(Device.objects.all())
    return render(request, "fleet/devices.html", {"devices": found, "online": sum(d.online for d in found)})


@require_POST
def command(request, address):
    device = get_object_or_404(Device, address=address)
    cmd = request.POST.get("cmd", "").strip()
    if not cmd:
        return render(request, "fleet/trouble.html", {"text": "There is no command to send."}, status=400)
    press = Press.objects.create(command_id=str(uuid.uuid4()), device=device, cmd=cmd)
    try:
        send({"id": press.command_id, "device": device.address, "cmd": cmd, "reply": True, "timeout": "5s"})
    except Trouble as trouble:
        return render(request, "fleet/trouble.html", {"text": str(trouble)}, status=503)
    return redirect("result", id=press.command_id)


def result(request, id):
    press = get_object_or_404(Press.objects.select_related("device"), pk=id)
    try:
        found = Result.objects.filter(pk=id).first()
    except (ProgrammingError, OperationalError):  # the host makes the table when it starts for the first time
        found = None
    return render(request, "fleet/result.html", {"press": press, "result": found})


class Trouble(Exception):
    """Why a command wasn't taken, for people."""


def send(body):
    """Hands a command to the host, which answers when RabbitMQ has it. The id makes it safe to send it again."""
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
        raise Trouble(f"The host didn't take the command: {error.code} {said}") from error
    except OSError as error:  # URLError is one, too
        raise Trouble(f"The host doesn't answer: {getattr(error, 'reason', error)}. Try again in a moment.") from error
