"""Settings for development: an SQLite file, a key in the source. Only the end concerns Beseda."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = "only-for-the-example"
DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "shop.urls"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "chat",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
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
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "chat.User"
LOGIN_URL = "/admin/login/"
USE_TZ = True
STATIC_URL = "static/"
# The client library is plain modules. This is the copy of this repository.
STATICFILES_DIRS = [("beseda-client", BASE_DIR.parents[2] / "clients/typescript/src")]

# Beseda's address for this server, and the one for browsers, if they differ.
BESEDA_URL = os.environ.get("BESEDA_URL", "http://127.0.0.1:8080")
BESEDA_PUBLIC_URL = os.environ.get("BESEDA_PUBLIC_URL", BESEDA_URL)
# Beseda has the same secret.
BESEDA_SECRET = os.environ["BESEDA_JWT_HS256_SECRET"]
