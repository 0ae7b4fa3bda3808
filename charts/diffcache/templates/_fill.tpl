{{/*
Helm takes a value that is left empty (`prometheus:`) for null, and drops the chart's default. This puts the default back,
so that empty means unchanged; each template begins with it. Within labels and resources, null takes an item away, as
people expect of Helm.
*/}}
{{- define "diffcache.fill" -}}
{{- include "diffcache.fillMap" (list .Values (.Files.Get "files/defaults.yaml" | fromYaml)) -}}
{{- end }}

{{/* list of values and defaults */}}
{{- define "diffcache.fillMap" -}}
{{- $values := index . 0 -}}
{{- range $key, $default := index . 1 -}}
{{- $value := index $values $key -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := set $values $key (deepCopy $default) -}}
{{- else if and (kindIs "map" $default) (not (has $key (list "labels" "resources" "servingResources"))) -}}
{{- include "diffcache.fillMap" (list $value $default) -}}
{{- end -}}
{{- end -}}
{{- end }}
