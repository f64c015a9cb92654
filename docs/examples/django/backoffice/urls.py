from django.urls import path

from fleet import views

urlpatterns = [
    path("", views.devices, name="devices"),
    path("device/<str:address>/command", views.command, name="command"),
    path("device/<str:address>/command/<path:id>", views.result, name="result"),
]
