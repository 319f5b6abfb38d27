# The operator's command line. The build context is laid out by scripts/images.sh.
FROM scratch
COPY . /
ENV PATH=/usr/bin:/bin
ENTRYPOINT ["/usr/bin/tepui"]
