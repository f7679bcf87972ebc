"""What surfaces listens to: everything that changes what is served, whoever changes it."""

from django.apps import AppConfig


class SurfacesConfig(AppConfig):
    name = "surfaces"
    verbose_name = "Surfaces"

    def ready(self) -> None:
        from surfaces import listeners

        listeners.connect()
