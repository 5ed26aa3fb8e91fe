{{/*
SPDX-FileCopyrightText: The Headgate Authors
SPDX-License-Identifier: Apache-2.0
*/}}

{{/* Labels of every object. Call with (dict "root" $ "name" <name of the component>). */}}
{{- define "headgate.labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: headgate
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Reference of an image. Call with (dict "root" $ "image" <the image value>). */}}
{{- define "headgate.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* Address of the Prometheus that counts requests. */}}
{{- define "headgate.prometheusURL" -}}
{{- if .Values.prometheus.enabled -}}
http://headgate-prometheus.{{ .Release.Namespace }}.svc:9090
{{- else -}}
{{ .Values.prometheus.url }}
{{- end }}
{{- end }}

{{/* Port of that address, for the NetworkPolicy. */}}
{{- define "headgate.prometheusPort" -}}
{{- $url := include "headgate.prometheusURL" . | urlParse -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- $port | default (ternary "443" "80" (eq $url.scheme "https")) -}}
{{- end }}

{{/* Container security that the Pod Security level "restricted" asks for, and a bit more. */}}
{{- define "headgate.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
privileged: false
readOnlyRootFilesystem: true
{{- end }}

{{/* Pod security likewise; 65532 is the user "nonroot" of the images. */}}
{{- define "headgate.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Refuses values that can't work, with what to do instead. */}}
{{- define "headgate.check" -}}
{{- if and .Values.prometheus.enabled .Values.prometheus.url -}}
{{- fail "prometheus.enabled and prometheus.url are both set. Keep prometheus.url to use the Prometheus that you have, or prometheus.enabled=true to install a small one." -}}
{{- end -}}
{{- if and .Values.prometheus.enabled .Values.prometheus.secret -}}
{{- fail "prometheus.secret is for the address in prometheus.url. The small Prometheus asks for nothing: leave prometheus.secret out." -}}
{{- end -}}
{{- if not (or .Values.prometheus.enabled .Values.prometheus.url) -}}
{{- fail "Headgate counts requests with Prometheus and does not know where it is. If you have one: --set prometheus.url=http://prometheus.monitoring.svc:9090 (it must scrape the sidecars; with the Prometheus operator it does). If you have none: --set prometheus.enabled=true installs a small one." -}}
{{- end -}}
{{- end }}
