"""Django settings: every value comes from the environment, with a default that runs from a fresh clone."""

import re
from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static
from django.urls import reverse_lazy

from recplatform import logs

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()

# --- Core -----------------------------------------------------------------
DEBUG: bool = env.bool("DEBUG", default=False)
# Shown in the admin's corner, so that nobody publishes to the wrong installation.
ENVIRONMENT: str = env.str("ENVIRONMENT", default="development")
INSECURE_KEY = "insecure-development-key-change-me-in-production"
SECRET_KEY: str = env.str("SECRET_KEY", default=INSECURE_KEY)
if SECRET_KEY == INSECURE_KEY and ENVIRONMENT != "development":
    raise ImproperlyConfigured(
        f'SECRET_KEY must be set where ENVIRONMENT is "{ENVIRONMENT}": sessions are signed with it. '
        "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(50))'"
    )
ALLOWED_HOSTS: list[str] = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", default=[])
# Behind a proxy that speaks HTTPS, says so in X-Forwarded-Proto and lets no caller say it.
HTTPS: bool = env.bool("HTTPS", default=False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
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
    "recplatform.health.middleware",
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
# Served straight from the apps' folders, so that no collectstatic step stands
# between a clone and a working admin. A folder is named only to collect into it.
STATIC_ROOT: str | None = env.str("STATIC_ROOT", default=None)
WHITENOISE_USE_FINDERS = True
LOGIN_URL = "admin:login"
# The sign-in form of the admin, opened by itself, has no page to go on to.
LOGIN_REDIRECT_URL = "admin:index"

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

# Between two looks at a Batch Transform job, which takes minutes to start alone.
BATCH_POLL_SECONDS: float = env.float("BATCH_POLL_SECONDS", default=15)

# Whoever edits catalog sources can show any file that the process can read: name the
# folders that hold catalogs where such people are not trusted with the machine. None: any.
CATALOG_FOLDERS: list[str] = env.list("CATALOG_FOLDERS", default=[])

# Name of the SageMaker endpoint that embeds the demo catalog: 384 dimensions.
DEMO_ENDPOINT: str = env.str("DEMO_ENDPOINT", default="minilm-l6-v2")

# --- Celery ---------------------------------------------------------------
# kombu knows the protocol by the name of redis.
CELERY_BROKER_URL: str = re.sub(
    "^valkey", "redis", env.str("CELERY_BROKER_URL", default=VALKEY_URL)
)
if CELERY_BROKER_URL.startswith("rediss:") and "ssl_" not in CELERY_BROKER_URL:
    # Without any option kombu would take every certificate for the server's.
    CELERY_BROKER_URL += ("&" if "?" in CELERY_BROKER_URL else "?") + "ssl_cert_reqs=required"
# Celery reads a variable CELERY_BROKER_URL past these settings, but not past these two.
CELERY_BROKER_READ_URL = CELERY_BROKER_WRITE_URL = CELERY_BROKER_URL
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
REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["surfaces.api.auth.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["surfaces.api.auth.HasApiKey"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "surfaces.api.problems.exception_handler",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "recplatform",
    "DESCRIPTION": "Recommendations for every surface of a storefront, configured in the admin.",
    "VERSION": "1",
    # The first that has null as a type, which pydantic's schemas write.
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": [],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"persistAuthorization": True, "tryItOutEnabled": True},
    "REDOC_DIST": "SIDECAR",
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "TAGS": [
        {"name": "recommendations", "description": "Items for the surfaces of a storefront."},
        {"name": "items", "description": "Changes of single items between two builds of an index."},
    ],
}

# --- Logging --------------------------------------------------------------
# One JSON object a line; text for people while DEBUG is on.
LOG_LEVEL: str = env.str("LOG_LEVEL", default="INFO").upper()
LOGGING = logs.configure(debug=DEBUG, level=LOG_LEVEL)


# --- Admin ----------------------------------------------------------------
def _page(title: str, icon: str, page: str, permission: str = "") -> dict[str, Any]:
    """Return an entry of the admin's sidebar, for whoever has the permission."""
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(page),
        "permission": lambda request: not permission or request.user.has_perm(permission),
    }


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "recplatform",
    "SITE_HEADER": "recplatform",
    "SITE_SUBHEADER": "Recommendations, configured",
    "SITE_SYMBOL": "recommend",
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "ENVIRONMENT": "surfaces.admin.dashboard.environment",
    "DASHBOARD_CALLBACK": "surfaces.admin.dashboard.context",
    "STYLES": [lambda request: static("surfaces/console.css")],
    "COLORS": {
        "primary": {
            "50": "oklch(97.1% .014 185)",
            "100": "oklch(94.3% .04 184)",
            "200": "oklch(89.2% .075 183)",
            "300": "oklch(82.3% .105 182)",
            "400": "oklch(74.2% .118 182)",
            "500": "oklch(64.8% .112 184)",
            "600": "oklch(54.3% .096 186)",
            "700": "oklch(46.6% .081 188)",
            "800": "oklch(40.1% .066 190)",
            "900": "oklch(35.1% .054 192)",
            "950": "oklch(25.6% .043 194)",
        },
    },
    "SIDEBAR": {
        "show_search": True,
        "navigation": [
            {
                "title": "Surfaces",
                "separator": False,
                "items": [
                    _page("Overview", "dashboard", "admin:index"),
                    _page(
                        "Surfaces",
                        "view_carousel",
                        "admin:surfaces_surface_changelist",
                        "surfaces.view_surface",
                    ),
                    _page(
                        "Rerankers",
                        "swap_vert",
                        "admin:surfaces_reranker_changelist",
                        "surfaces.view_reranker",
                    ),
                    _page(
                        "API keys",
                        "key",
                        "admin:surfaces_apikey_changelist",
                        "surfaces.view_apikey",
                    ),
                    _page("Preview", "visibility", "preview", "surfaces.view_surface"),
                ],
            },
            {
                "title": "Indexes",
                "separator": True,
                "items": [
                    _page(
                        "Indexes",
                        "database",
                        "admin:indexes_indexdefinition_changelist",
                        "indexes.view_indexdefinition",
                    ),
                    _page(
                        "Builds",
                        "construction",
                        "admin:indexes_indexbuild_changelist",
                        "indexes.view_indexbuild",
                    ),
                    _page(
                        "Refreshes",
                        "sync",
                        "admin:indexes_indexrefresh_changelist",
                        "indexes.view_indexrefresh",
                    ),
                    _page("Doctor", "stethoscope", "doctor", "indexes.view_indexbuild"),
                    _page(
                        "Endpoints",
                        "neurology",
                        "admin:indexes_embeddingendpoint_changelist",
                        "indexes.view_embeddingendpoint",
                    ),
                    _page(
                        "Catalogs",
                        "inventory_2",
                        "admin:indexes_catalogsource_changelist",
                        "indexes.view_catalogsource",
                    ),
                ],
            },
            {
                "title": "Enrichment",
                "separator": True,
                "items": [
                    _page(
                        "Sources",
                        "person_search",
                        "admin:enrichment_enrichmentsource_changelist",
                        "enrichment.view_enrichmentsource",
                    ),
                ],
            },
            {
                "title": "System",
                "separator": True,
                "items": [
                    _page("Users", "person", "admin:auth_user_changelist", "auth.view_user"),
                    _page("Groups", "group", "admin:auth_group_changelist", "auth.view_group"),
                    _page(
                        "Schedules",
                        "schedule",
                        "admin:django_celery_beat_periodictask_changelist",
                        "django_celery_beat.view_periodictask",
                    ),
                ],
            },
        ],
    },
}
