"""Tests the application with a running Beseda at BESEDA_URL."""

import json
import time
from io import StringIO
from unittest import mock
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from django.conf import settings
from django.contrib.staticfiles import finders
from django.core.management import call_command
from django.test import TransactionTestCase

from . import beseda
from .models import User

# Longest wait for a change to reach the other replica. Beseda promises 5.
SECONDS = 15


def ask(token, method, path, body=None):
    """Sends a request with this token, as a browser would; returns the status and the JSON."""
    request = Request(
        f"{settings.BESEDA_URL}/api/v1{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    try:
        with urlopen(request) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except HTTPError as failure:
        return failure.code, json.loads(failure.read())


class ChatTest(TransactionTestCase):
    def setUp(self):
        self.alice = User.objects.create_user("alice", first_name="Alice", last_name="Smith")
        self.bob = User.objects.create_user("bob")

    def token(self, user):
        self.client.force_login(user)
        return self.client.get("/chat-token/").json()["token"]

    def open_chat(self, user, other):
        self.client.force_login(user)
        answer = self.client.post(f"/contact/{other.public_id}/")
        self.assertEqual(answer.status_code, 302)
        return answer["Location"].split("/")[2]

    def test_two_users_talk(self):
        chat = self.open_chat(self.alice, self.bob)
        self.assertEqual(self.open_chat(self.bob, self.alice), chat)
        alice, bob = self.token(self.alice), self.token(self.bob)
        message = {"text": "Is it still there?", "client_msg_id": "1"}
        status, sent = ask(alice, "POST", f"/chats/{chat}/messages/", message)
        self.assertEqual(status, 201)
        self.assertEqual(ask(alice, "POST", f"/chats/{chat}/messages/", message), (200, sent))
        _, history = ask(bob, "GET", f"/chats/{chat}/messages/")
        self.assertEqual(history["results"], [sent])
        self.assertEqual(ask(bob, "GET", "/chats/unread/")[1]["total"], 1)

    def test_others_see_the_name_before_the_first_visit_and_after_a_change(self):
        self.open_chat(self.bob, self.alice)
        bob = self.token(self.bob)
        _, page = ask(bob, "GET", "/chats/")
        self.assertEqual(page["results"][0]["other_user"]["name"], "Alice Smith")
        self.alice.last_name = "Jones"
        self.alice.save()
        _, page = ask(bob, "GET", "/chats/")
        self.assertEqual(page["results"][0]["other_user"]["name"], "Alice Jones")

    def test_strangers_see_nothing(self):
        chat = self.open_chat(self.alice, self.bob)
        eve = self.token(User.objects.create_user("eve"))
        status, problem = ask(eve, "GET", f"/chats/{chat}/messages/")
        self.assertEqual((status, problem["code"]), (404, "chat_not_found"))
        self.client.logout()
        self.assertEqual(self.client.get("/chat-token/").status_code, 401)
        self.assertEqual(self.client.get(f"/chat/{chat}/").status_code, 302)

    def test_a_closed_account_is_out_at_once_and_back_when_it_is_opened(self):
        old = self.token(self.alice)
        self.assertEqual(ask(old, "GET", "/chats/")[0], 200)
        self.alice.is_active = False
        self.alice.save()
        self.until(lambda: ask(old, "GET", "/chats/"), lambda answer: answer[0] == 401)
        self.alice.is_active = True
        self.alice.save()
        self.assertEqual(ask(self.token(self.alice), "GET", "/chats/")[0], 200)

    def test_a_deleted_user_leaves_no_text(self):
        chat = self.open_chat(self.alice, self.bob)
        alice, bob = self.token(self.alice), self.token(self.bob)
        ask(alice, "POST", f"/chats/{chat}/messages/", {"text": "my address is …"})
        self.alice.delete()
        _, history = ask(bob, "GET", f"/chats/{chat}/messages/")
        self.assertEqual([message["text"] for message in history["results"]], [""])
        self.assertIsNone(ask(bob, "GET", f"/chats/{chat}/")[1]["other_user"]["name"])
        self.until(lambda: ask(alice, "GET", "/chats/"), lambda answer: answer[0] == 401)

    def test_without_beseda_people_are_saved_but_not_deleted(self):
        with mock.patch.object(beseda, "ATTEMPTS", 1), \
                self.settings(BESEDA_URL="http://127.0.0.1:9"), self.assertLogs(level="ERROR"):
            carol = User.objects.create_user("carol")
            with self.assertRaises(beseda.BesedaError):
                carol.delete()
        self.assertTrue(User.objects.filter(username="carol").exists())
        out = StringIO()
        call_command("name_chat_users", stdout=out)
        self.assertEqual(out.getvalue(), "3 users named\n")
        User.objects.get(username="carol").delete()

    def test_the_page_has_what_it_needs(self):
        chat = self.open_chat(self.alice, self.bob)
        page = self.client.get(f"/chat/{chat}/").content.decode()
        self.assertIn(chat, page)
        self.assertIn("beseda-client/index.js", page)
        self.assertIsNotNone(finders.find("beseda-client/index.js"))
        self.assertIn("bob", self.client.get("/").content.decode())

    def until(self, ask_again, is_right):
        deadline = time.monotonic() + SECONDS
        while not is_right(answer := ask_again()):
            self.assertLess(time.monotonic(), deadline, answer)
            time.sleep(0.05)
