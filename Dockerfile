# The image of the existing program, with ours in it: same volumes, same entry point.
FROM node:20-bookworm-slim AS build
# the first process of a container has to take in orphans, as `nameq run` and `nameq exec` may leave them; Node cannot
RUN apt-get update && apt-get install -y --no-install-recommends tini
WORKDIR /nameq
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts
COPY build.mjs tsconfig.json tsconfig.build.json ./
COPY src ./src
RUN npm run build:program

# as the base of the first stage is, but without npm and yarn, which a node has no use for
FROM debian:bookworm-slim
COPY --from=build /usr/local/bin/node /usr/bin/tini /usr/local/bin/
COPY --from=build /nameq/dist/ /usr/local/lib/nameq/
# the user `nameq` is there for `docker run --user nameq`. By default it is root, who can read every secret that is mounted
RUN ln -s ../lib/nameq/nameq.cjs /usr/local/bin/nameq \
 && useradd --system --user-group --no-create-home --shell /usr/sbin/nologin nameq \
 && mkdir -p /etc/nameq/features /run/nameq/state \
 && chown nameq:nameq /etc/nameq/features /run/nameq/state
LABEL org.opencontainers.image.title="nameq" \
      org.opencontainers.image.description="Service discovery that nobody has to operate" \
      org.opencontainers.image.licenses="MIT"
VOLUME /etc/nameq/features
VOLUME /run/nameq/state
# alive: the node answers, over HTTP if it has that (even that something is wrong), else by its state directory. A bucket
# out of reach is no reason to restart a whole fleet
HEALTHCHECK --start-period=90s --timeout=10s CMD nameq status --json | grep -Eq '^\{"source":"http"|"state":"running"'
ENTRYPOINT ["tini", "--", "nameq"]
