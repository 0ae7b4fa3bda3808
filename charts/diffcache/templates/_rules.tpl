{{/*
All that the operator may do, for the ClusterRole and the Roles alike. Each verb is used; Secrets are not among them.
`create` goes with `patch` where server-side apply may find nothing yet.
*/}}
{{- define "diffcache.rules" -}}
- apiGroups: [diffcache.io]
  resources: [diffusioncaches]
  verbs: [get, list, watch]
- apiGroups: [diffcache.io]
  resources: [diffusioncaches/status]
  verbs: [get, update, patch]
- apiGroups: [diffcache.io]
  resources: [diffusioncaches/finalizers] # where the API server checks blockOwnerDeletion, as OpenShift's does
  verbs: [update]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, patch] # their owner, which follows the reclaimPolicy
- apiGroups: [""]
  resources: [events]
  verbs: [get, list, create, patch]
{{- end }}
