# The image of the existing program, with ours in it: same volumes, same entry point.
FROM node:20-slim AS build
WORKDIR /nameq
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts
COPY build.mjs tsconfig.json tsconfig.build.json ./
COPY src ./src
RUN npm run build:program

FROM node:20-slim
COPY --from=build /nameq/dist/ /usr/local/lib/nameq/
RUN ln -s /usr/local/lib/nameq/nameq.cjs /usr/local/bin/nameq \
 && mkdir -p /etc/nameq/features /run/nameq/state
VOLUME /etc/nameq/features
VOLUME /run/nameq/state
# nameq handles its signals itself and starts no processes, so it can be the first process of its container
ENTRYPOINT ["nameq"]
