from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from . import beseda
from .models import User


@require_GET
@login_required
def people(request):
    """Lists the users to write to."""
    others = User.objects.filter(is_active=True).exclude(pk=request.user.pk)
    return render(request, "chat/people.html", {"people": others})


@require_GET
@never_cache
def token(request):
    """Gives the page a token, at first and whenever its token expires."""
    if not request.user.is_authenticated:
        return JsonResponse({"detail": "Sign in first."}, status=401)
    return JsonResponse({"token": beseda.user_token(request.user)})


@require_POST
@login_required
def contact(request, public_id):
    """Opens a chat. This application decides who may write to whom; here everybody may."""
    other = get_object_or_404(User, public_id=public_id, is_active=True)
    return redirect("chat", chat_id=beseda.open_chat(request.user, other))


@require_GET
@login_required
def chat(request, chat_id):
    """Shows a chat. Beseda checks the membership, because the page reads with the user's own token."""
    context = {"chat_id": str(chat_id), "url": settings.BESEDA_PUBLIC_URL}
    return render(request, "chat/chat.html", {"context": context})
