# A master on nothing but itself. The build context is laid out by scripts/images.sh.
FROM scratch
COPY . /
ENV PATH=/usr/bin:/bin
VOLUME /var/lib/tepui
EXPOSE 5050 5052
ENTRYPOINT ["/usr/bin/tepui-master", "--work_dir=/var/lib/tepui"]
