from django.contrib import admin
from django.urls import path

from chat import views

urlpatterns = [
    path("", views.people),
    path("chat-token/", views.token),
    path("contact/<uuid:public_id>/", views.contact),
    path("chat/<uuid:chat_id>/", views.chat, name="chat"),
    path("admin/", admin.site.urls),
]
