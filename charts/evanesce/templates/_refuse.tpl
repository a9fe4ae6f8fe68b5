{{- /* SPDX-FileCopyrightText: The Evanesce Authors
SPDX-License-Identifier: Apache-2.0

What values.schema.json cannot say: values that contradict each other, or the cluster. */ -}}
{{- define "evanesce.refuse" -}}
{{- $v := .Values -}}
{{- if and $v.preventPodSchedulingIfMissing (semverCompare "<1.37.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "preventPodSchedulingIfMissing needs Kubernetes 1.37, and this is %s: use startupTaint.enabled instead" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and $v.classes.inline $v.classes.configMap -}}
{{- fail "classes.inline and classes.configMap are both set: classes come from one place" -}}
{{- end -}}
{{- if gt (len (compact (list $v.credentials.configMap $v.credentials.secret $v.credentials.hostPath))) 1 -}}
{{- fail "credentials has more than one of configMap, secret, hostPath: credentials files come from one place" -}}
{{- end -}}
{{- if and $v.sealed.configMap $v.sealed.hostPath -}}
{{- fail "sealed.configMap and sealed.hostPath are both set: sealed files come from one place" -}}
{{- end -}}
{{- if and $v.caBundle.configMap $v.caBundle.pem -}}
{{- fail "caBundle.configMap and caBundle.pem are both set: certificate authorities come from one place" -}}
{{- end -}}
{{- if and $v.startupTaint.enabled (not (include "evanesce.kubernetes" .)) -}}
{{- fail "startupTaint.enabled needs the API server, and classes.inline or classes.configMap leaves the plugin without it" -}}
{{- end -}}
{{- if and (ne $v.driverName "csi.evanesce.dev") (eq $v.stateDir "/run/evanesce") -}}
{{- fail (printf "driverName is %s and stateDir is not set: two drivers on a node must not share their records, choose a directory such as /run/%s" $v.driverName $v.driverName) -}}
{{- end -}}
{{- if and $v.networkPolicy.enabled (not $v.networkPolicy.backends) -}}
{{- fail "networkPolicy.enabled without networkPolicy.backends would cut the plugin off from its backends: list them" -}}
{{- end -}}
{{- $memory := include "evanesce.bytes" (dig "limits" "memory" "" $v.resources) | int64 -}}
{{- $needed := add (include "evanesce.bytes" $v.limits.nodeTmpfs | int64) 67108864 -}}
{{- if and $memory (lt $memory $needed) -}}
{{- fail (printf "resources.limits.memory is %s, and what volumes hold counts for this container: give it limits.nodeTmpfs (%s) and 64Mi" $v.resources.limits.memory $v.limits.nodeTmpfs) -}}
{{- end -}}
{{- end -}}
