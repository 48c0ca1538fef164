"""Keeps the users in Beseda up to date."""

from django.db import transaction
from django.db.models.signals import post_save, pre_delete
from django.dispatch import receiver

from . import beseda
from .models import User


@receiver(post_save, sender=User)
def tell(instance, update_fields, **_):
    """Sends a new user, a new name or a closed account to Beseda, after the commit.

    It is `robust`, so that a user can be saved while Beseda is unavailable; the failure is logged.
    `manage.py name_chat_users` sends missed names again, and a closed account gets no new token anyway.
    """
    if update_fields and set(update_fields) == {"last_login"}:
        return
    tell_now = beseda.name_user if instance.is_active else beseda.revoke_tokens
    transaction.on_commit(lambda: tell_now(instance), robust=True)


@receiver(pre_delete, sender=User)
def erase(instance, **_):
    """Erases the user in Beseda first. If that fails, the user still exists and can be deleted again."""
    beseda.erase_user(instance)
