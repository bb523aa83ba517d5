{{/* Name of the chart's objects: the release's name, with `r1plus` added unless it has it. */}}
{{- define "r1plus-operator.fullname" -}}
{{- if contains .Release.Name .Chart.Name -}}
{{ .Chart.Name }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{/* Name of the registry's objects. */}}
{{- define "r1plus-operator.registryName" -}}
{{- if contains .Release.Name .Chart.Name -}}
r1plus-registry
{{- else -}}
{{ printf "%s-r1plus-registry" .Release.Name | trunc 52 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "r1plus-operator.registrySelectorLabels" -}}
app.kubernetes.io/name: r1plus-registry
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "r1plus-operator.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: r1plus
{{- end }}

{{- define "r1plus-operator.selectorLabels" -}}
app.kubernetes.io/name: r1plus-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* CEL list: the labels by which the operator, its network policies and its Services know pods. */}}
{{- define "r1plus-operator.podLabels" -}}
['r1plus.ai/deployment', 'r1plus.ai/revision', 'r1plus.ai/serving', 'r1plus.ai/volume', 'r1plus.ai/probe', 'r1plus.ai/gateway']
{{- end }}

{{/* Before install and upgrade; what succeeded is removed, what failed stays to be looked at. */}}
{{- define "r1plus-operator.crdHookAnnotations" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* After a failure the pod stays, and with it its log. */}}
{{- define "r1plus-operator.testHookAnnotations" -}}
helm.sh/hook: test
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* Pod Security `restricted`, for every pod of this chart. */}}
{{- define "r1plus-operator.podSecurityContext" -}}
runAsNonRoot: true
{{- range $field, $id := .Values.podSecurity }}
{{- if not (kindIs "invalid" $id) }}
{{ $field }}: {{ int64 $id }}
{{- end }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* The way to the cluster's DNS. Policies are judged after a Service's translation: CoreDNS's own port stands beside 53. */}}
{{- define "r1plus-operator.toDNS" -}}
- to:
    {{- range .Values.networkPolicy.dns.pods }}
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .namespace }}
      podSelector:
        matchLabels:
          {{- toYaml .labels | nindent 10 }}
    {{- end }}
    {{- range .Values.networkPolicy.dns.cidrs }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  ports:
    - {protocol: UDP, port: 53}
    - {protocol: UDP, port: 5353}
    - {protocol: TCP, port: 53}
    - {protocol: TCP, port: 5353}
{{- end }}

{{- define "r1plus-operator.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "r1plus-operator.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/*
A reference with images.prefix before it, if it names no registry. Takes the list [root, reference].
*/}}
{{- define "r1plus-operator.image" -}}
{{- $prefix := (index . 0).Values.images.prefix -}}
{{- $image := index . 1 | default "" -}}
{{- if and $prefix $image (not (regexMatch "^([^/]*[.:][^/]*|localhost)/" $image)) -}}
{{- $prefix }}/{{ $image -}}
{{- else -}}
{{- $image -}}
{{- end -}}
{{- end -}}

{{/*
The runtimes of images.gpu or images.cpu as JSON, each with its reference as pods name it. Takes the list [root, runtimes].
*/}}
{{- define "r1plus-operator.runtimes" -}}
{{- $root := index . 0 -}}
{{- $runtimes := dict -}}
{{- range $backend, $runtime := index . 1 | default dict -}}
{{- $image := include "r1plus-operator.image" (list $root $runtime.image) -}}
{{- $_ := set $runtimes $backend (merge (dict "image" $image) $runtime) -}}
{{- end -}}
{{- toJson $runtimes -}}
{{- end -}}

{{/*
Refuses images that a tag names. Those of engines may bear one: what is in them is compared with the engine's own digest
before each start.
*/}}
{{- define "r1plus-operator.requireDigests" -}}
{{- $images := dict -}}
{{- range $name := list "operator" "monitor" "registry" "triton" -}}
{{- $_ := set $images $name (get $.Values.images $name) -}}
{{- end -}}
{{- with .Values.images.gateway -}}
{{- $_ := set $images "gateway" . -}}
{{- end -}}
{{- with .Values.images.trainer -}}
{{- $_ := set $images "trainer" . -}}
{{- end -}}
{{- range $backend, $runtime := .Values.images.gpu -}}
{{- $_ := set $images (printf "gpu.%s.image" $backend) $runtime.image -}}
{{- end -}}
{{- range $backend, $runtime := .Values.images.cpu -}}
{{- $_ := set $images (printf "cpu.%s.image" $backend) $runtime.image -}}
{{- end -}}
{{- range $name, $image := $images -}}
{{- if and $.Values.images.requireDigests (not (contains "@sha256:" $image)) -}}
{{- fail (printf "images.%s: %s has a tag, which may be moved; name a digest (REPOSITORY@sha256:...), or set images.requireDigests=false" $name $image) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Refuses secrets in what the operator copies into tenants' namespaces, and a proxy that no Job could reach. Not in the
schema: it would show the password, and no remedy.
*/}}
{{- define "r1plus-operator.requireOpenDelivery" -}}
{{- with .Values.delivery -}}
{{- if contains "PRIVATE KEY" .ca -}}
{{- fail "delivery.ca: holds a private key, which every tenant could read; keep the certificates only" -}}
{{- end -}}
{{- if contains "@" .proxy.url -}}
{{- fail "delivery.proxy.url: carries a user or a password, which every tenant could read in its Job; let the proxy admit the cluster's addresses without one, and set http://HOST:PORT" -}}
{{- end -}}
{{- if and .proxy.url (not (regexMatch "^http://[A-Za-z0-9][-A-Za-z0-9.]*:[0-9]{1,5}$" .proxy.url)) -}}
{{- fail (printf "delivery.proxy.url: %s is not http://HOST:PORT; what passes through the proxy is TLS in any case" .proxy.url) -}}
{{- end -}}
{{- if and .proxy.url (not .proxy.cidrs) -}}
{{- fail (printf "delivery.proxy.cidrs: empty, so that no Job could reach %s; list its networks, e.g. [10.0.9.7/32]" .proxy.url) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Names of the shipped golden suites, a JSON list. */}}
{{- define "r1plus-operator.suites" -}}
{{- $names := list -}}
{{- range $path, $_ := .Files.Glob "files/suites/*/suite.json" -}}
{{- $names = append $names (base (dir $path)) -}}
{{- end -}}
{{ $names | sortAlpha | toJson }}
{{- end }}

{{/* The engine catalog with this installation's images and digests; an override that names no engine is an error. */}}
{{- define "r1plus-operator.catalog" -}}
{{- $known := list -}}
{{- $images := .Values.images.engines | default dict -}}
{{- $digests := .Values.engineDigests | default dict -}}
{{- range $path, $bytes := .Files.Glob "files/catalog/*.yaml" }}
{{- range $text := regexSplit "(?m)^---\\s*$" (toString $bytes) -1 }}
{{- $engine := fromYaml $text }}
{{- if $engine }}
{{- $name := $engine.metadata.name }}
{{- $known = append $known $name }}
{{- $artifact := $engine.spec.artifact | default dict }}
{{- with get $images $name }}{{- $_ := set $artifact "image" . }}{{- end }}
{{- with get $digests $name }}{{- $_ := set $artifact "sha256" . }}{{- end }}
{{- with $artifact.image }}{{- $_ := set $artifact "image" (include "r1plus-operator.image" (list $ .)) }}{{- end }}
{{- if $artifact }}
{{- if not (and $artifact.image $artifact.sha256) }}
{{- fail (printf "%s has published sizes but no files here: to serve it, set both images.engines.%s and engineDigests.%s" $name $name $name) }}
{{- end }}
{{- $_ := set $engine.spec "artifact" $artifact }}
{{- end }}
---
{{ toYaml $engine }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $_ := $images }}
{{- if not (has $name $known) }}
{{- fail (printf "images.engines: %s: the catalog has no such engine; there are: %s" $name ($known | sortAlpha | join ", ")) }}
{{- end }}
{{- end }}
{{- range $name, $_ := $digests }}
{{- if not (has $name $known) }}
{{- fail (printf "engineDigests: %s: the catalog has no such engine; there are: %s" $name ($known | sortAlpha | join ", ")) }}
{{- end }}
{{- end }}
{{- end }}

{{/*
Every suite file with its path, in path order. Not AsConfig: it knows files by their last name only, and the suites'
files all have the same two, so that it would keep the one or the other by chance.
*/}}
{{- define "r1plus-operator.suitesText" -}}
{{- range $path, $content := .Files.Glob "files/suites/**" }}
{{ $path }}
{{ toString $content }}
{{- end }}
{{- end }}

{{/* Where Prometheus answers; empty where nobody shall ask it. */}}
{{- define "r1plus-operator.prometheusURL" -}}
{{- if eq .Values.monitoring.prometheusURL "default" -}}
http://prometheus-operated.{{ .Values.monitoring.namespace }}.svc:9090
{{- else -}}
{{ .Values.monitoring.prometheusURL }}
{{- end -}}
{{- end }}
