{{/* What the operator's and the test's pod share: the restricted profile of pod security, and where they may run. */}}

{{- define "diffcache.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  {{- if .Values.fixedIds }}
  runAsUser: 10001
  runAsGroup: 10001
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "diffcache.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- define "diffcache.placement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "diffcache.pullSecretNames" -}}
{{- $names := list -}}
{{- range .Values.imagePullSecrets }}{{ $names = append $names .name }}{{ end -}}
{{ join "," $names }}
{{- end }}
