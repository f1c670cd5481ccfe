# SPDX-License-Identifier: Apache-2.0

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
# Docker sets TARGETOS, TARGETARCH and, for arm, TARGETVARIANT; where they are empty Go builds for the machine it runs on.
ARG TARGETOS
ARG TARGETARCH
ARG TARGETVARIANT
ARG VERSION
ARG REVISION
ARG BRANCH
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    package=github.com/prometheus/common/version && \
    if [ "$TARGETARCH" = arm ]; then export GOARM=${TARGETVARIANT#v}; fi && \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false -o /out/ \
    -ldflags "-s -w -X $package.Version=${VERSION:-$(cat VERSION)} -X $package.Revision=$REVISION -X $package.Branch=$BRANCH" ./cmd/...

# No shell, no libc, no certificates: the binaries are static and carry the CA roots.
FROM scratch AS base
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.source="https://github.com/balena-exporter/balena-exporter" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION
COPY --chmod=644 LICENSE NOTICE /
# Numeric, so that Kubernetes can see that it is not root.
USER 65532:65532

FROM base AS simulator
LABEL org.opencontainers.image.title="balena-simulator" \
      org.opencontainers.image.description="A balena API from memory to try balena-exporter on"
COPY --from=build /out/balena-simulator /bin/balena-simulator
EXPOSE 8085
ENTRYPOINT ["/bin/balena-simulator"]

FROM base
LABEL org.opencontainers.image.title="balena-exporter" \
      org.opencontainers.image.description="Prometheus exporter for fleets of balena devices"
COPY --from=build /out/balena-exporter /bin/balena-exporter
# 8000 serves the metrics, 8001 the health checks.
EXPOSE 8000 8001
ENTRYPOINT ["/bin/balena-exporter"]
