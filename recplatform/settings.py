"""Django settings: every value comes from the environment, with a default that runs from a fresh clone."""

from pathlib import Path

import environ

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()

# --- Core -----------------------------------------------------------------
DEBUG: bool = env.bool("DEBUG", default=False)
SECRET_KEY: str = env.str("SECRET_KEY", default="insecure-development-key-change-me-in-production")
ALLOWED_HOSTS: list[str] = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", default=[])
ROOT_URLCONF = "recplatform.urls"
WSGI_APPLICATION = "recplatform.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.inlines",
    "unfold.contrib.forms",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_celery_beat",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "indexes",
    "enrichment",
    "surfaces",
    "recplatform.demo",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
# Served straight from the apps' folders, so that no collectstatic step stands
# between a clone and a working admin.
WHITENOISE_USE_FINDERS = True
LOGIN_URL = "admin:login"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

# --- Stores ---------------------------------------------------------------
DATABASES = {
    "default": env.db("DATABASE_URL", default="postgres://postgres@127.0.0.1:5432/recplatform")
}
VALKEY_URL: str = env.str("VALKEY_URL", default="valkey://127.0.0.1:6379/0")
VALKEY_REPLICA_URLS: list[str] = env.list("VALKEY_REPLICA_URLS", default=[])
VALKEY_CLUSTER: bool = env.bool("VALKEY_CLUSTER", default=False)
# Every key and index name starts with this, so that installations can share a server.
VALKEY_NAMESPACE: str = env.str("VALKEY_NAMESPACE", default="rp")
AWS_REGION: str = env.str("AWS_REGION", default=env.str("AWS_DEFAULT_REGION", default="us-east-1"))

# --- Celery ---------------------------------------------------------------
# kombu knows the protocol by the name of redis.
CELERY_BROKER_URL: str = env.str("CELERY_BROKER_URL", default=VALKEY_URL).replace(
    "valkey", "redis", 1
)
CELERY_BROKER_TRANSPORT_OPTIONS = {"global_keyprefix": f"{VALKEY_NAMESPACE}:celery:"}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
CELERY_TIMEZONE = TIME_ZONE

# --- API ------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["surfaces.api.auth.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["surfaces.api.auth.HasApiKey"],
    "DEFAULT_RENDERER_CLASSES": ["surfaces.api.rendering.OrjsonRenderer"],
    "DEFAULT_PARSER_CLASSES": ["surfaces.api.rendering.OrjsonParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "surfaces.api.problems.exception_handler",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "recplatform",
    "DESCRIPTION": "Recommendations for every surface of a storefront, configured in the admin.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": [],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SCHEMA_PATH_PREFIX": r"/api/v1",
}

# --- Admin ----------------------------------------------------------------
UNFOLD = {
    "SITE_TITLE": "recplatform",
    "SITE_HEADER": "recplatform",
    "SITE_SUBHEADER": "Recommendations, configured",
    "SITE_SYMBOL": "recommend",
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
}
