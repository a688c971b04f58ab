# The gateway alone in an empty image: a static program, the certificate
# authorities, an ordinary user. Only the volume is written to, so it runs with
# a read-only root file system:
#
#   docker run --read-only -p 8080:8080 -e SLUICE_CONSUL_ADDRESS=http://consul:8500 \
#     -e SLUICE_ETCD_ENDPOINTS=http://etcd:2379 -v sluice-state:/var/lib/sluice sluice
#
# The admin listener stays on the container's own loopback unless the
# configuration moves it and sets a token.

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
ARG COMMIT=unknown
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION} -X main.commit=${COMMIT}" -o /out/sluice ./cmd/sluice
# Owned by the user below, for a volume mounted on it takes over the owner.
RUN mkdir -p /out/state

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/sluice /sluice
COPY --from=build --chown=65532:65532 /out/state /var/lib/sluice
USER 65532:65532
ENV SLUICE_STATE_DIR=/var/lib/sluice
VOLUME /var/lib/sluice
EXPOSE 8080
# The admin listener's /livez, asked by the program itself: there is no shell here.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/sluice", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/sluice"]
CMD ["serve"]
