from django.urls import path

from campaigns import public_views

urlpatterns = [
    path("u/<str:token>", public_views.unsubscribe, name="unsubscribe"),
]
