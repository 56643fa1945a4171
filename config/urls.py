from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import include, path


def health(_request: HttpRequest) -> HttpResponse:
    """Say that the web process answers; `manage.py doctor` checks what stands behind it."""
    return HttpResponse("ok", content_type="text/plain")


urlpatterns = [
    path("", lambda _request: HttpResponseRedirect("/admin/")),
    path("health", health),
    path("admin/", admin.site.urls),
    path("", include("campaigns.public_urls")),
]
