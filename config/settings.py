"""Django's settings, read from the environment once.

Only each app's `conf.py` reads what is below the line "Postroad": everything else gets
policy objects. `docs/settings.md` lists the variables.
"""

from __future__ import annotations

import socket
from pathlib import Path

import environ
from django.urls import reverse_lazy

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()

DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY", default="")  # empty stops the start: config.checks.E001
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django_celery_beat",
    "deliverability",
    "mailer",
    "campaigns",
    "config",
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

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {
    "default": env.db_url(
        "DATABASE_URL", default="postgres://postroad:postroad@127.0.0.1:5432/postroad"
    )
}
DATABASES["default"]["ENGINE"] = "django.db.backends.postgresql"
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
# Celery closes a task's connection when the task ends; with a pool that only gives it back.
DATABASES["default"].setdefault("OPTIONS", {}).update(
    {
        "pool": {
            "min_size": 0,
            "max_size": env.int("DATABASE_POOL_SIZE", default=16),
            "timeout": 10,
            # The pool doubles its pause after each failed attempt: begin anew before it is long,
            # or minutes pass after a long outage until somebody tries again.
            "reconnect_timeout": 10,
        },
        "connect_timeout": 5,
        "application_name": env.str("POSTROAD_ROLE", default="postroad"),
    }
)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = reverse_lazy("admin:login")

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True
FORMAT_MODULE_PATH = ["config.formats"]

STATIC_URL = "static/"
POSTROAD_VAR = Path(env.str("POSTROAD_VAR", default=str(BASE_DIR / "var")))
STATIC_ROOT = POSTROAD_VAR / "static"
# The admin's files come straight from the packages: no collectstatic on one machine.
WHITENOISE_USE_FINDERS = True

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = env.bool("COOKIES_NEED_HTTPS", default=False)
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "SAMEORIGIN"  # the admin shows previews in frames of its own
DATA_UPLOAD_MAX_NUMBER_FIELDS = 10_000
# Larger uploads go to disk, not to memory.
FILE_UPLOAD_MAX_MEMORY_SIZE = 2_500_000

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    # Anybody may cause a 4xx: one line each, or strangers could fill the disk with tracebacks.
    "filters": {"brief": {"()": "config.log_filters.without_traceback_below_500"}},
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "filters": ["brief"],
        }
    },
    "root": {"handlers": ["stderr"], "level": env.str("LOG_LEVEL", default="INFO")},
    "loggers": {"dns": {"level": "WARNING"}, "aiosmtplib": {"level": "WARNING"}},
}

# Postroad ------------------------------------------------------------------------------
REDIS_URL = env.str("REDIS_URL", default="redis://127.0.0.1:6379/0")
POSTROAD_JOURNALS = Path(env.str("POSTROAD_JOURNALS", default=str(POSTROAD_VAR / "journals")))
POSTROAD_HOST = env.str("POSTROAD_HOST", default=socket.gethostname())
POSTROAD_SANDBOX = env.bool("POSTROAD_SANDBOX", default=False)
POSTROAD_DNS = env.str("POSTROAD_DNS", default="")
POSTROAD_SANDBOX_URL = env.str("POSTROAD_SANDBOX_URL", default="")
POSTROAD_PUBLIC_URL = env.str("POSTROAD_PUBLIC_URL", default="http://127.0.0.1:8000").rstrip("/")
POSTROAD_FLOWER_URL = env.str("POSTROAD_FLOWER_URL", default="")
POSTROAD_FSYNC = env.str("POSTROAD_FSYNC", default="none")
POSTROAD_TLS_VERIFY_RELAYS = env.bool("POSTROAD_TLS_VERIFY_RELAYS", default=not POSTROAD_SANDBOX)
POSTROAD_PRIVATE_NETWORKS = env.bool("POSTROAD_PRIVATE_NETWORKS", default=False)
POSTROAD_BATCH_SIZE = env.int("POSTROAD_BATCH_SIZE", default=200)
POSTROAD_DISPATCH_AHEAD = env.int("POSTROAD_DISPATCH_AHEAD", default=16)
POSTROAD_CONNECTIONS_PER_BATCH = env.int("POSTROAD_CONNECTIONS_PER_BATCH", default=10)
POSTROAD_VISIBILITY_SECONDS = env.int("POSTROAD_VISIBILITY_SECONDS", default=900)
POSTROAD_BATCH_SECONDS = env.int("POSTROAD_BATCH_SECONDS", default=240)
POSTROAD_REPUBLISH_SECONDS = env.int("POSTROAD_REPUBLISH_SECONDS", default=60)

UNFOLD = {
    "SITE_TITLE": "Postroad",
    "SITE_HEADER": "Postroad",
    "SITE_SYMBOL": "outgoing_mail",
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": "config.admin_site.icon"},
    ],
    "SITE_URL": None,  # there is no other site to return to
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_BACK_BUTTON": True,
    "STYLES": ["config.admin_site.stylesheet"],
    "ENVIRONMENT": "config.admin_site.environment",
    "GLOBAL_CALLBACK": "config.admin_site.links",
    "DASHBOARD_CALLBACK": "config.dashboard.dashboard",
    "SIDEBAR": {
        "show_search": True,
        "show_all_applications": False,
        "navigation": "config.admin_site.navigation",
    },
    "COLORS": {
        "primary": {
            "50": "oklch(97.1% .014 235)",
            "100": "oklch(94.2% .03 235)",
            "200": "oklch(89.1% .058 235)",
            "300": "oklch(81.8% .101 237)",
            "400": "oklch(72.6% .143 240)",
            "500": "oklch(64.5% .159 245)",
            "600": "oklch(54.8% .165 250)",
            "700": "oklch(47.8% .147 252)",
            "800": "oklch(41.3% .12 254)",
            "900": "oklch(36.2% .096 256)",
            "950": "oklch(27.4% .069 258)",
        },
    },
}
