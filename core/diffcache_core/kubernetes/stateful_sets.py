"""StatefulSets: the fields about their pods and their progress."""

from __future__ import annotations

from diffcache_core.kubernetes.metadata import ObjectView
from diffcache_core.kubernetes.pods import PodSpec
from diffcache_core.kubernetes.view import View


class PodTemplate(View):
    spec: PodSpec = PodSpec()


class StatefulSetSpec(View):
    replicas: int = 1
    template: PodTemplate = PodTemplate()


class StatefulSetStatus(View):
    observed_generation: int = 0
    update_revision: str = ""
    replicas: int = 0


class StatefulSet(ObjectView):
    spec: StatefulSetSpec = StatefulSetSpec()
    status: StatefulSetStatus = StatefulSetStatus()

    @property
    def image(self) -> str:
        """The image in the template. In a pod, a webhook may have rewritten it."""
        return self.spec.template.spec.containers[0].image
