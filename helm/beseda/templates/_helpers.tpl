{{- define "beseda.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 50 characters: the longest suffix, "-postgres" and a StatefulSet's hash, fits into 63. */}}
{{- define "beseda.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "beseda.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "beseda.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "beseda.selector" -}}
app.kubernetes.io/name: {{ include "beseda.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* What the replicas' Service and policies select: not the database of `dev`, not the tests. */}}
{{- define "beseda.replicaSelector" -}}
{{ include "beseda.selector" . }}
app.kubernetes.io/component: replica
{{- end -}}

{{- define "beseda.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "beseda.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: beseda
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "beseda.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{- define "beseda.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "beseda.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{- define "beseda.postgresSecret" -}}
{{- if .Values.dev.enabled -}}{{ include "beseda.fullname" . }}-dev
{{- else if .Values.cloudnativepg.enabled -}}{{ include "beseda.fullname" . }}-postgres-app
{{- else -}}{{ .Values.postgres.existingSecret }}
{{- end -}}
{{- end -}}

{{- define "beseda.postgresKey" -}}
{{- if .Values.dev.enabled -}}database-url
{{- else if .Values.cloudnativepg.enabled -}}uri
{{- else -}}{{ .Values.postgres.key }}
{{- end -}}
{{- end -}}

{{- define "beseda.redisSecret" -}}
{{- if .Values.dev.enabled -}}{{ include "beseda.fullname" . }}-dev{{- else -}}{{ .Values.redis.existingSecret }}{{- end -}}
{{- end -}}

{{- define "beseda.redisKey" -}}
{{- if .Values.dev.enabled -}}redis-url{{- else -}}{{ .Values.redis.key }}{{- end -}}
{{- end -}}

{{- define "beseda.jwtSecret" -}}
{{- if and .Values.dev.enabled (not .Values.jwt.existingSecret) (eq .Values.jwt.kind "hs256") -}}{{ include "beseda.fullname" . }}-dev
{{- else -}}{{ .Values.jwt.existingSecret }}
{{- end -}}
{{- end -}}

{{- define "beseda.jwtKey" -}}
{{- if and .Values.dev.enabled (not .Values.jwt.existingSecret) -}}jwt{{- else -}}{{ .Values.jwt.key }}{{- end -}}
{{- end -}}

{{- define "beseda.s3Secret" -}}
{{- if hasPrefix "s3://" .Values.attachments.store -}}{{ .Values.attachments.s3.existingSecret }}{{- end -}}
{{- end -}}

{{/* The secrets that replicas read. */}}
{{- define "beseda.secrets" -}}
{{- $names := list (include "beseda.postgresSecret" .) (include "beseda.redisSecret" .) -}}
{{- if ne .Values.jwt.kind "jwks" -}}{{- $names = append $names (include "beseda.jwtSecret" .) -}}{{- end -}}
{{- if .Values.webhooks.url -}}{{- $names = append $names .Values.webhooks.existingSecret -}}{{- end -}}
{{- with include "beseda.s3Secret" . -}}{{- $names = append $names . -}}{{- end -}}
{{- if .Values.push.existingSecret -}}{{- $names = append $names .Values.push.existingSecret -}}{{- end -}}
{{- $names | uniq | sortAlpha | join "," -}}
{{- end -}}

{{/* Of what is in them. A secret that is not there yet, or that Helm can't see (`helm template`), counts as
     empty. */}}
{{- define "beseda.secretsChecksum" -}}
{{- $contents := dict -}}
{{- range splitList "," (include "beseda.secrets" .) -}}
{{- if eq . (printf "%s-dev" (include "beseda.fullname" $)) -}}
{{- $_ := set $contents . (include "beseda.devSecrets" $) -}}
{{- else -}}
{{- $secret := lookup "v1" "Secret" $.Release.Namespace . | default dict -}}
{{- $_ := set $contents . (get $secret "data") -}}
{{- end -}}
{{- end -}}
{{- toJson $contents | sha256sum -}}
{{- end -}}

{{- define "beseda.terminationGrace" -}}
{{- $own := .Values.shutdown.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $own -}}{{ add (int .Values.shutdown.graceSeconds) 10 }}{{- else -}}{{ int $own }}{{- end -}}
{{- end -}}

{{/* What a schema can't say: values that have to fit together. */}}
{{- define "beseda.validate" -}}
{{- $v := .Values -}}
{{- if ge (int $v.shutdown.drainDelaySeconds) (int $v.shutdown.graceSeconds) -}}
{{- fail "shutdown.drainDelaySeconds must be less than shutdown.graceSeconds: else the replica is out of time before it begins to close its sockets" -}}
{{- end -}}
{{- if lt (int (include "beseda.terminationGrace" .)) (add (int $v.shutdown.graceSeconds) 5 | int) -}}
{{- fail "shutdown.terminationGracePeriodSeconds must be at least 5 more than shutdown.graceSeconds: else Kubernetes kills replicas that still drain" -}}
{{- end -}}
{{- if and $v.dev.enabled $v.cloudnativepg.enabled -}}
{{- fail "set dev.enabled or cloudnativepg.enabled, not both: each brings a Postgres" -}}
{{- end -}}
{{- if not (include "beseda.postgresSecret" .) -}}
{{- fail "postgres.existingSecret is missing: a secret whose key postgres.key holds the URL of the database (or cloudnativepg.enabled, or to try it out dev.enabled)" -}}
{{- end -}}
{{- if and $v.cloudnativepg.enabled $v.postgres.existingSecret -}}
{{- fail "set cloudnativepg.enabled or postgres.existingSecret, not both" -}}
{{- end -}}
{{- if and $v.dev.enabled (or $v.postgres.existingSecret $v.redis.existingSecret) -}}
{{- fail "dev.enabled brings a Postgres and a Redis: leave postgres.existingSecret and redis.existingSecret empty" -}}
{{- end -}}
{{- if and $v.postgres.caKey (not $v.postgres.existingSecret) -}}
{{- fail "postgres.caKey is a key of postgres.existingSecret, which is empty" -}}
{{- end -}}
{{- if and $v.redis.caKey (not $v.redis.existingSecret) -}}
{{- fail "redis.caKey is a key of redis.existingSecret, which is empty" -}}
{{- end -}}
{{- if not (include "beseda.redisSecret" .) -}}
{{- fail "redis.existingSecret is missing: a secret whose key redis.key holds the URL of Redis" -}}
{{- end -}}
{{- if and (ne $v.jwt.kind "jwks") (not (include "beseda.jwtSecret" .)) -}}
{{- fail "jwt.existingSecret is missing: a secret whose key jwt.key holds what tokens are checked with" -}}
{{- end -}}
{{- if and (eq $v.jwt.kind "jwks") $v.jwt.existingSecret -}}
{{- fail "jwt.kind jwks needs no jwt.existingSecret: the keys are read from jwt.jwksUrl" -}}
{{- end -}}
{{- if and (eq $v.jwt.kind "jwks") (not (or $v.jwt.jwksUrl $v.jwt.issuers)) -}}
{{- fail "jwt.jwksUrl is missing: where the issuer publishes its keys (or jwt.issuers)" -}}
{{- end -}}
{{- if and (ne $v.jwt.kind "jwks") $v.jwt.jwksUrl -}}
{{- fail "jwt.jwksUrl needs jwt.kind jwks: an issuer has one source of keys" -}}
{{- end -}}
{{- if and $v.jwt.issuers (or (ne $v.jwt.kind "jwks") $v.jwt.jwksUrl) (not $v.jwt.issuer) -}}
{{- fail "jwt.issuer is missing: beside jwt.issuers it tells whose key a token needs" -}}
{{- end -}}
{{- if and $v.migrations.existingSecret (or $v.dev.enabled $v.cloudnativepg.enabled) -}}
{{- fail "migrations.existingSecret goes with postgres.existingSecret: the chart's own Postgres has one role, which owns its tables" -}}
{{- end -}}
{{- if and $v.webhooks.url (not $v.webhooks.existingSecret) -}}
{{- fail "webhooks.existingSecret is missing: a secret whose key webhooks.key holds what events are signed with" -}}
{{- end -}}
{{- if and (hasPrefix "http://" $v.webhooks.url) (not $v.webhooks.allowPrivate) -}}
{{- fail "webhooks.url must be https://, or http:// with webhooks.allowPrivate: people's messages are in it" -}}
{{- end -}}
{{- $platforms := or $v.push.vapid.key $v.push.fcm.key $v.push.apns.key -}}
{{- if and $platforms (not $v.push.existingSecret) -}}
{{- fail "push.existingSecret is missing: a secret with the keys that push.vapid.key, push.fcm.key and push.apns.key name" -}}
{{- end -}}
{{- if and $v.push.existingSecret (not $platforms) -}}
{{- fail "push.existingSecret is set, but no platform: name a key of it in push.vapid.key, push.fcm.key or push.apns.key" -}}
{{- end -}}
{{- if and $v.push.vapid.key (not $v.push.vapid.subject) -}}
{{- fail "push.vapid.subject is missing: mailto: or https://, where push services reach you" -}}
{{- end -}}
{{- if and $v.push.apns.key (not (and $v.push.apns.keyId $v.push.apns.teamId $v.push.apns.topic)) -}}
{{- fail "push.apns.key needs push.apns.keyId, push.apns.teamId and push.apns.topic" -}}
{{- end -}}
{{- if and (eq $v.migrations.mode "job") (or $v.dev.enabled $v.cloudnativepg.enabled) -}}
{{- fail "migrations.mode job runs before anything of the release is there, so before its own Postgres: use initContainer" -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas must not be more than autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (eq $v.autoscaling.engine "keda") (gt (int $v.autoscaling.socketsPerPod) 0) (not $v.autoscaling.prometheusUrl) -}}
{{- fail "autoscaling.prometheusUrl is missing: KEDA asks Prometheus for beseda_sockets_open (or set autoscaling.socketsPerPod to 0)" -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (eq (int $v.autoscaling.cpuPercent) 0) (eq (int $v.autoscaling.socketsPerPod) 0) -}}
{{- fail "autoscaling needs autoscaling.cpuPercent or autoscaling.socketsPerPod above 0" -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) -}}
{{- fail "ingress.hosts is empty" -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs is empty: name the Gateway" -}}
{{- end -}}
{{- if and (or $v.ingress.enabled $v.httpRoute.enabled) (not $v.config.trustedProxies) -}}
{{- fail "config.trustedProxies is missing: name the addresses of what is behind ingress or httpRoute (or their range, 10.0.0.0/8), else all people are one address, and share its limits" -}}
{{- end -}}
{{- if and $v.ingress.enabled $v.ingress.tls (hasPrefix "http://" $v.config.publicUrl) -}}
{{- fail "config.publicUrl begins with http://, but ingress.tls is set: browsers open no ws:// from a page of https://" -}}
{{- end -}}
{{- if and $v.monitoring.podMonitor.enabled $v.networkPolicy.enabled (not $v.networkPolicy.monitoring) -}}
{{- fail "networkPolicy.monitoring is empty, so nobody may scrape what monitoring.podMonitor asks for: name Prometheus" -}}
{{- end -}}
{{- if ge (int $v.cloudnativepg.synchronousStandbys) (int $v.cloudnativepg.instances) -}}
{{- fail "cloudnativepg.synchronousStandbys must be less than cloudnativepg.instances: the primary is none" -}}
{{- end -}}
{{- if and $v.loadTest.enabled $v.config.rateLimits.enabled -}}
{{- fail "loadTest needs config.rateLimits.enabled: false: it sends faster than people may" -}}
{{- end -}}
{{- if and $v.loadTest.enabled (not $v.loadTest.image) -}}
{{- fail "loadTest.image is missing: `docker build --target loadtest` makes it" -}}
{{- end -}}
{{- if and $v.loadTest.enabled (ne $v.jwt.kind "hs256") -}}
{{- fail "loadTest signs tokens itself: it needs jwt.kind hs256" -}}
{{- end -}}
{{- end -}}

{{/* What replicas take out of the secret for Postgres. */}}
{{- define "beseda.postgresItems" -}}
- { key: {{ include "beseda.postgresKey" . | quote }}, path: database-url }
{{- with .Values.postgres.caKey }}
- { key: {{ . | quote }}, path: database-ca }
{{- end }}
{{- with .Values.postgres.standbysKey }}
- { key: {{ . | quote }}, path: database-replica-urls }
{{- end }}
{{- end -}}

{{/* What migrations need, and no replica: the owner's URL, where there is one of its own. */}}
{{- define "beseda.migrateVolume" -}}
- name: migrations
  projected:
    defaultMode: 0440
    sources:
      {{- with .Values.migrations }}
      {{- if .existingSecret }}
      - secret:
          name: {{ .existingSecret | quote }}
          items: [{ key: {{ .key | quote }}, path: database-url }]
      {{- with $.Values.postgres.caKey }}
      - secret:
          name: {{ include "beseda.postgresSecret" $ | quote }}
          items: [{ key: {{ . | quote }}, path: database-ca }]
      {{- end }}
      {{- else }}
      - secret:
          name: {{ include "beseda.postgresSecret" $ | quote }}
          items:
            {{- include "beseda.postgresItems" $ | nindent 12 }}
      {{- end }}
      {{- end }}
{{- end -}}

{{/* Secrets are files: unlike the environment they show in no description of a process. */}}
{{- define "beseda.secretVolume" -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ include "beseda.postgresSecret" . | quote }}
          items:
            {{- include "beseda.postgresItems" . | nindent 12 }}
      - secret:
          name: {{ include "beseda.redisSecret" . | quote }}
          items:
            - { key: {{ include "beseda.redisKey" . | quote }}, path: redis-url }
            {{- with .Values.redis.caKey }}
            - { key: {{ . | quote }}, path: redis-ca }
            {{- end }}
      {{- if ne .Values.jwt.kind "jwks" }}
      - secret:
          name: {{ include "beseda.jwtSecret" . | quote }}
          items: [{ key: {{ include "beseda.jwtKey" . | quote }}, path: jwt }]
      {{- end }}
      {{- if .Values.webhooks.url }}
      - secret:
          name: {{ .Values.webhooks.existingSecret | quote }}
          items: [{ key: {{ .Values.webhooks.key | quote }}, path: webhook }]
      {{- end }}
      {{- with include "beseda.s3Secret" . }}
      - secret:
          name: {{ . | quote }}
          items:
            - { key: {{ $.Values.attachments.s3.accessKeyIdKey | quote }}, path: s3-access-key-id }
            - { key: {{ $.Values.attachments.s3.secretAccessKeyKey | quote }}, path: s3-secret-access-key }
      {{- end }}
      {{- if .Values.push.existingSecret }}
      - secret:
          name: {{ .Values.push.existingSecret | quote }}
          items:
            {{- range $platform := list "vapid" "fcm" "apns" }}
            {{- with (index $.Values.push $platform).key }}
            - { key: {{ . | quote }}, path: push-{{ $platform }} }
            {{- end }}
            {{- end }}
      {{- end }}
{{- end -}}

{{- define "beseda.migrateContainer" -}}
name: migrate
image: {{ include "beseda.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [migrate]
env:
  - { name: DATABASE_URL_FILE, value: /run/secrets/migrations/database-url }
  {{- if .Values.postgres.caKey }}
  - { name: BESEDA_DATABASE_CA, value: /run/secrets/migrations/database-ca }
  {{- end }}
  - { name: BESEDA_LOG_FORMAT, value: {{ .Values.config.logFormat }} }
volumeMounts:
  - { name: migrations, mountPath: /run/secrets/migrations, readOnly: true }
resources:
  requests: { cpu: 50m, memory: 64Mi }
  limits: { memory: 128Mi }
securityContext: {{- toYaml .Values.containerSecurityContext | nindent 2 }}
{{- end -}}

