{{- define "diffcache.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 54 | trimSuffix "-" }}
{{- end }}

{{/* 54: a release's name, at most 53, stays whole and thus different from others; "-metrics" still fits into 63. */}}
{{- define "diffcache.fullname" -}}
{{- $name := include "diffcache.name" . -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{ .Values.fullnameOverride | default $full | trunc 54 | trimSuffix "-" }}
{{- end }}

{{/* Of what lies outside the release's namespace: releases of one name in two namespaces must not meet there. */}}
{{- define "diffcache.farName" -}}
{{ printf "%s-%s" .Release.Namespace (include "diffcache.fullname" .) }}
{{- end }}

{{- define "diffcache.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "diffcache.fullname" .) "default") }}
{{- end }}

{{/* Never changes in a release's life: a Deployment's selector cannot. */}}
{{- define "diffcache.selectorLabels" -}}
app.kubernetes.io/name: {{ include "diffcache.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "diffcache.labels" -}}
app.kubernetes.io/name: {{ include "diffcache.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: diffcache
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The whole reference of an image: list of the root and the image's values. */}}
{{- define "diffcache.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $registry := $root.Values.global.imageRegistry | default $image.registry -}}
{{- $version := printf ":%s" ($image.tag | default $root.Chart.AppVersion) -}}
{{- with $image.digest }}{{ $version = printf "@%s" . }}{{ end -}}
{{ $registry | trimSuffix "/" }}/{{ $image.repository }}{{ $version }}
{{- end }}
