from importlib import import_module

from django.apps import AppConfig


class ConfigConfig(AppConfig):
    name = "config"
    verbose_name = "System"

    def ready(self) -> None:
        # Tasks declared with shared_task publish through this application.
        import_module("config.celery")
        import_module("config.checks")
