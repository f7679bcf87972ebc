"""Settings of the tests: the real ones, with names of their own on every server."""

import os

from recplatform.settings import *  # noqa: F403
from recplatform.settings import DATABASES

# Set by the process that started the stack, so that its workers agree on it.
RUN = os.environ["RECPLATFORM_TEST_RUN"]

VALKEY_NAMESPACE = f"t{RUN}{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
DATABASES["default"]["TEST"] = {"NAME": f"test_recplatform_{RUN}"}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
CELERY_TASK_ALWAYS_EAGER = True
CELERY_TASK_EAGER_PROPAGATES = True
CELERY_BROKER_TRANSPORT_OPTIONS = {"global_keyprefix": f"{VALKEY_NAMESPACE}:celery:"}
SECRET_KEY = "only-for-tests"
ALLOWED_HOSTS = ["*"]
