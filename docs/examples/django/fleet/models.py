"""Tables of the back office. Pentrough writes some columns of Device and all of Result; everything else is Django's alone."""

from django.db import models


class Device(models.Model):
    # Django's own.
    address = models.CharField(max_length=64, unique=True)
    name = models.CharField(max_length=100)
    place = models.CharField(max_length=100, blank=True)

    # Written by Pentrough: see [handler.tables.columns] in pentrough.toml.
    online = models.BooleanField(default=False, editable=False)
    connected = models.BooleanField(default=False, editable=False)
    reason = models.CharField(max_length=64, default="", editable=False)
    remote_addr = models.CharField(max_length=64, default="", editable=False)
    host = models.CharField(max_length=100, default="", editable=False)
    generation = models.BigIntegerField(default=0, editable=False)
    epoch = models.BigIntegerField(default=0, editable=False)
    seq = models.BigIntegerField(default=0, editable=False)
    last_seen = models.DateTimeField(null=True, editable=False)
    last_result_id = models.CharField(max_length=255, default="", editable=False)
    last_result_state = models.CharField(max_length=32, default="", editable=False)
    last_result_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["address"]
        indexes = [models.Index(fields=["host", "online", "generation"], name="fleet_device_host")]

    def save(self, *args, **kwargs):
        # Pentrough may have written newer values since the read: save only Django's columns.
        if self.pk and "update_fields" not in kwargs:
            kwargs["update_fields"] = ["address", "name", "place"]
        super().save(*args, **kwargs)


class Press(models.Model):
    """The commands that users sent: a table that only Django has."""

    command_id = models.CharField(max_length=64, primary_key=True)
    device = models.ForeignKey(Device, on_delete=models.CASCADE)
    cmd = models.CharField(max_length=200)
    at = models.DateTimeField(auto_now_add=True)


class Result(models.Model):
    """How commands ended. Pentrough makes this table and appends to it."""

    id = models.CharField(max_length=255, primary_key=True)
    device = models.CharField(max_length=255)
    state = models.CharField(max_length=32)
    code = models.BigIntegerField()
    detail = models.TextField()
    reply = models.TextField()
    time = models.DateTimeField()

    class Meta:
        managed = False
        db_table = "device_results"
