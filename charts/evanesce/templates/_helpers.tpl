{{- /* SPDX-FileCopyrightText: The Evanesce Authors
SPDX-License-Identifier: Apache-2.0 */ -}}

{{- /* The name of everything: `<release>-csi`, so a release called evanesce makes evanesce-csi. */ -}}
{{- define "evanesce.fullname" -}}
{{- $release := contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) -}}
{{- default (printf "%s-csi" $release) .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "evanesce.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: csi
{{- end -}}

{{- define "evanesce.labels" -}}
{{ include "evanesce.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Nothing is published yet, so there is no default that could be pulled. */ -}}
{{- define "evanesce.image" -}}
{{- $repository := required "image.repository is not set: build the image with image/build, push it to a registry of yours, and name it here, such as registry.example/evanesce" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- /* Whether classes are custom resources; if not, the plugin has no access to the API server. */ -}}
{{- define "evanesce.kubernetes" -}}
{{- if not (or .Values.classes.inline .Values.classes.configMap) }}true{{ end -}}
{{- end -}}

{{- define "evanesce.inlineClasses" -}}{{ include "evanesce.fullname" . }}-classes{{- end -}}
{{- define "evanesce.inlineCa" -}}{{ include "evanesce.fullname" . }}-ca{{- end -}}

{{- define "evanesce.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* What the chart's two small pods have in common: once, anywhere the plugin is, and `restricted`. */ -}}
{{- define "evanesce.smallPod" -}}
restartPolicy: Never
{{- include "evanesce.pullSecrets" . }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "evanesce.smallContainer" -}}
image: {{ include "evanesce.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- /* Bytes of a quantity with Ki, Mi, Gi or no unit; nothing for any other. */ -}}
{{- define "evanesce.bytes" -}}
{{- $text := toString . -}}
{{- $number := regexFind "^[0-9]+" $text | int64 -}}
{{- $unit := regexReplaceAll "^[0-9]+" $text "" -}}
{{- $units := dict "" 1 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 -}}
{{- if hasKey $units $unit }}{{ mul $number (get $units $unit) }}{{ end -}}
{{- end -}}
