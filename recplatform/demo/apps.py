from django.apps import AppConfig


class DemoConfig(AppConfig):
    name = "recplatform.demo"
    label = "demo"
