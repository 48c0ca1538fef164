"""Keeps Beseda in step with this application's users."""

from django.db import transaction
from django.db.models.signals import post_save, pre_delete
from django.dispatch import receiver

from . import beseda
from .models import User


@receiver(post_save, sender=User)
def tell(instance, update_fields, **_):
    """A new user, a new name, an account that was closed: told after the commit.

    `robust`: while Beseda is away people are saved all the same, and the failure is logged. Names are
    mended by `manage.py name_chat_users`, and a closed account gets no new token in any case.
    """
    if update_fields and set(update_fields) == {"last_login"}:
        return
    tell_now = beseda.name_user if instance.is_active else beseda.revoke_tokens
    transaction.on_commit(lambda: tell_now(instance), robust=True)


@receiver(pre_delete, sender=User)
def erase(instance, **_):
    """First there, then here: if it fails, the user is still here to be deleted once more."""
    beseda.erase_user(instance)
