{{/* The name that all objects begin with. */}}
{{- define "forager.name" -}}
{{ .Values.nameOverride }}
{{- end }}

{{/* Labels that find the pods of a component; they never change. Takes a dict of root and component. */}}
{{- define "forager.selector" -}}
app.kubernetes.io/name: forager
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of every object. Takes a dict of root and component. */}}
{{- define "forager.labels" -}}
{{ include "forager.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{/* The run's settings as FORAGER_ variables; text stays text, all else is written as YAML. */}}
{{- define "forager.settings" -}}
{{- range $name, $value := .Values.settings }}
FORAGER_{{ $name | replace "." "_" | upper }}: {{ if kindIs "string" $value }}{{ $value | quote }}{{ else }}{{ $value | toJson | quote }}{{ end }}
{{- end }}
{{- end }}

{{/* What every pod has. Takes a dict of root and component. */}}
{{- define "forager.pod" -}}
serviceAccountName: {{ include "forager.name" .root }}
automountServiceAccountToken: false
enableServiceLinks: false # their variables would look like settings
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
terminationGracePeriodSeconds: {{ .root.Values.terminationGracePeriodSeconds }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{ include "forager.selector" $ | nindent 8 }}
  {{- end }}
{{- $where := .root.Values -}}
{{- if eq .component "vllm" }}{{ $where = .root.Values.vllm }}{{ end }}
{{- with $where.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $where.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Annotations of every pod: another configuration makes other pods. */}}
{{- define "forager.annotations" -}}
checksum/settings: {{ include "forager.settings" . | sha256sum }}
{{- with .Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
The container of a role. Takes a dict of root, component (also the role and the
section of values), env (further variables), ports and volumes (further mounts),
the last three as YAML text.
*/}}
{{- define "forager.container" -}}
{{- $secure := .root.Values.security.enabled -}}
name: {{ .component }}
image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag }}"
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: [{{ .component }}]
envFrom:
  - configMapRef: {name: {{ include "forager.name" .root }}-settings}
env:
  - {name: FORAGER_RUN_ID, value: {{ .root.Values.run.id | quote }}}
  - {name: FORAGER_RUN_ROOT, value: /data}
  - {name: FORAGER_ADMIN_LISTEN, value: "0.0.0.0:9464"}
  - {name: FORAGER_ADMIN_START_TIMEOUT, value: 5m} # pods come up in any order
  {{- if ne .component "nats" }}
  - {name: FORAGER_BUS_URL, value: {{ include "forager.busURL" .root | quote }}}
  - {name: FORAGER_SEARCH_CLIENT_URL, value: {{ include "forager.retrieverURL" .root | quote }}}
  {{- end }}
  {{- if $secure }}
  - {name: FORAGER_SECURITY_DIR, value: /certs}
  {{- else }}
  - {name: FORAGER_SECURITY_ALLOW_PLAIN, value: "true"}
  {{- end }}
  {{- with get . "env" }}
  {{- . | nindent 2 }}
  {{- end }}
ports:
  - {name: admin, containerPort: 9464}
  {{- with get . "ports" }}
  {{- . | nindent 2 }}
  {{- end }}
startupProbe:
  httpGet: {path: /healthz, port: admin, scheme: {{ include "forager.scheme" .root | upper }}}
  periodSeconds: 2
  failureThreshold: 150
livenessProbe:
  httpGet: {path: /healthz, port: admin, scheme: {{ include "forager.scheme" .root | upper }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: admin, scheme: {{ include "forager.scheme" .root | upper }}}
  periodSeconds: 5
  timeoutSeconds: 5
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
resources: {{ get (get .root.Values .component) "resources" | toYaml | nindent 2 }}
volumeMounts:
  - {name: data, mountPath: /data}
  - {name: tmp, mountPath: /tmp}
  {{- if $secure }}
  - {name: certs, mountPath: /certs, readOnly: true}
  {{- end }}
  {{- with get . "volumes" }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end }}

{{/*
The container of somebody who asks and serves nothing, so that nobody probes it.
Takes a dict of root, component, args and resources.
*/}}
{{- define "forager.client" -}}
name: {{ .component }}
image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag }}"
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: {{ toJson .args }}
env:
  - {name: FORAGER_RUN_ID, value: {{ .root.Values.run.id | quote }}}
  - {name: FORAGER_RUN_ROOT, value: /tmp}
  - {name: FORAGER_BUS_URL, value: {{ include "forager.busURL" .root | quote }}}
  {{- if .root.Values.security.enabled }}
  - {name: FORAGER_SECURITY_DIR, value: /certs}
  {{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
resources: {{ toYaml .resources | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  {{- if .root.Values.security.enabled }}
  - {name: certs, mountPath: /certs, readOnly: true}
  {{- end }}
{{- end }}

{{/*
The volumes that every pod has besides data. Takes a dict of root, component and,
where that is another one, role: whose credentials it has.
*/}}
{{- define "forager.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- if .root.Values.security.enabled }}
- name: certs
  secret:
    secretName: {{ .root.Values.security.secretPrefix }}-{{ get . "role" | default .component }}
    defaultMode: 0440
{{- end }}
{{- end }}

{{- define "forager.scheme" -}}
{{ if .Values.security.enabled }}https{{ else }}http{{ end }}
{{- end }}

{{- define "forager.busURL" -}}
{{- $scheme := ternary "tls" "nats" .Values.security.enabled -}}
{{ .Values.nats.url | default (printf "%s://%s-nats:4222" $scheme (include "forager.name" .)) }}
{{- end }}

{{- define "forager.retrieverURL" -}}
{{ include "forager.scheme" . }}://{{ include "forager.name" . }}-retriever:8000
{{- end }}

{{/* Mounts and volumes of the model and of the folder that vLLM takes new weights from. */}}
{{- define "forager.modelMounts" -}}
{{- if .Values.vllm.enabled -}}
- {name: models, mountPath: {{ dir .Values.vllm.modelPath }}, readOnly: true}
- {name: weights, mountPath: /weights}
{{- end }}
{{- end }}

{{- define "forager.modelVolumes" -}}
{{- if .Values.vllm.enabled -}}
- name: models
  persistentVolumeClaim: {claimName: {{ required "vllm.modelClaim names the claim with the model" .Values.vllm.modelClaim }}, readOnly: true}
- name: weights
  persistentVolumeClaim: {claimName: {{ include "forager.name" . }}-weights}
{{- end }}
{{- end }}

{{/* A claim template of a StatefulSet. Takes the component's section of values. */}}
{{- define "forager.claim" -}}
metadata:
  name: data
spec:
  accessModes: [ReadWriteOnce]
  {{- with .storage.storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests: {storage: {{ .storage.size }}}
{{- end }}
