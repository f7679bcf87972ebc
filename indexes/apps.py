from django.apps import AppConfig
from django.db.models.signals import post_delete, post_save, pre_delete


class IndexesConfig(AppConfig):
    name = "indexes"
    verbose_name = "Indexes"

    def ready(self) -> None:
        # Imported here as they need the models. Tasks are sent by name, so they have to be known.
        from indexes import checks, removal, schedules, tasks  # noqa: F401
        from indexes.models import IndexBuild, IndexDefinition

        pre_delete.connect(
            removal.on_build_deleted, sender=IndexBuild, dispatch_uid="indexes.on_build_deleted"
        )
        post_save.connect(
            schedules.on_saved, sender=IndexDefinition, dispatch_uid="indexes.on_definition_saved"
        )
        post_delete.connect(
            schedules.on_deleted,
            sender=IndexDefinition,
            dispatch_uid="indexes.on_definition_deleted",
        )
