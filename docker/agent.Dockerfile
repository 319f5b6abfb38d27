# An agent that runs tasks on the host's Docker engine: mount the engine's socket and
# give the work folder the same path inside and outside, because the engine mounts
# sandboxes by the host's path. The build context is laid out by scripts/images.sh.
FROM scratch
COPY . /
ENV PATH=/usr/bin:/bin
VOLUME /var/lib/tepui-agent
EXPOSE 5051
ENTRYPOINT ["/usr/bin/tepui-agent", "--work_dir=/var/lib/tepui-agent"]
