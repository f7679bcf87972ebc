"""WSGI entry point: the application and the registry of published plans."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recplatform.settings")

application = get_wsgi_application()

from surfaces.registry import registry  # noqa: E402  (needs the app registry)

registry.start()
