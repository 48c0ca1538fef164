import uuid

from django.contrib.auth.models import AbstractUser
from django.db import models


class User(AbstractUser):
    """A user with a public id, because primary keys can be guessed and names change."""

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
