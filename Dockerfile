# SPDX-FileCopyrightText: The Headgate Authors
# SPDX-License-Identifier: Apache-2.0

# Two images around one static binary. It is built outside (the Go build cache makes
# that fast, and one toolchain serves all architectures) and expected in the context:
#
#   CGO_ENABLED=0 GOARCH=amd64 go build -trimpath -ldflags "-s -w" -o out/amd64/headgate ./cmd/headgate
#   docker build --target headgate .
#
# Base images are arguments. Where none can be pulled, locally made ones do;
# `go -C e2e/cluster run . images` builds both images that way.

# Certificates, time zones and the user, nothing else.
ARG BASE_IMAGE=gcr.io/distroless/static-debian13:nonroot@sha256:f7f8f729987ad0fdf6b05eeeae94b26e6a0f613bdf46feea7fc40f7bd72953e6
# Envoy at /usr/local/bin/envoy, with the libraries that it needs.
ARG ENVOY_IMAGE=envoyproxy/envoy:distroless-v1.40.0

# The control plane: webhooks, xDS server, controller.
FROM ${BASE_IMAGE} AS headgate
ARG TARGETARCH=amd64
COPY out/${TARGETARCH}/headgate /headgate
USER 65532:65532
ENTRYPOINT ["/headgate"]
CMD ["controller"]

# The sidecar, and the init container that prepares its pod.
FROM ${ENVOY_IMAGE} AS headgate-proxy
ARG TARGETARCH=amd64
COPY out/${TARGETARCH}/headgate /usr/local/bin/headgate
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/headgate", "run"]
CMD []
