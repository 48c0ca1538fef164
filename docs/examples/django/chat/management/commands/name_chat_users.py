from django.core.management.base import BaseCommand

from chat import beseda
from chat.models import User

# The most that Beseda accepts at once.
BATCH = 1_000


class Command(BaseCommand):
    help = "Sends all active users to Beseda: once at first, and whenever Beseda may have missed some."

    def handle(self, **_):
        users = User.objects.filter(is_active=True).order_by("pk")
        named, last = 0, 0
        while batch := list(users.filter(pk__gt=last)[:BATCH]):
            beseda.name_users(batch)
            named, last = named + len(batch), batch[-1].pk
        self.stdout.write(f"{named} users named")
