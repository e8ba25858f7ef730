# One image for every role of the cluster: front end, back end with nginx, client with curl and wrk.
#
#   docker build -t tcpha .
#   docker run --rm tcpha --help
#
# Stage 1 has the compiler; stage 2 takes only the finished environment from it.
FROM debian:bookworm-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends \
        gcc libc6-dev python3-dev python3-venv libnetfilter-queue-dev libnfnetlink-dev \
    && python3 -m venv /opt/tcpha
WORKDIR /src
# What others wrote changes seldom: this layer stays as long as pyproject.toml does.
COPY pyproject.toml ./
RUN python3 -c 'import tomllib as t; print(*t.load(open("pyproject.toml","rb"))["project"]["dependencies"], sep="\n")' \
        >requirements.txt \
    && /opt/tcpha/bin/pip install --no-cache-dir --disable-pip-version-check --requirement requirements.txt
COPY README.md ./
COPY tcpha tcpha
RUN /opt/tcpha/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps . \
    && /opt/tcpha/bin/pip uninstall --yes --quiet pip setuptools \
    && /usr/bin/find /opt/tcpha -name __pycache__ -prune -exec rm -rf {} +

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        python3 libnetfilter-queue1 iptables iproute2 nginx curl wrk \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin \
    # The agent's user; the server's, www-data, is Debian's.
    && useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin tcpha \
    && install --directory /srv/www /var/lib/tcpha-secret
COPY --from=build /opt/tcpha /opt/tcpha
COPY docker/nginx.conf /etc/nginx/nginx.conf
RUN echo 'a page' >/srv/www/page.html && echo 'a picture' >/srv/www/picture.jpg
ENV PATH=/opt/tcpha/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Said although it is the default: else engines before 24 take any signal that is sent to a container, SIGHUP or SIGUSR1
# too, for a wish that it end, and do not start it again when it fails later.
STOPSIGNAL SIGTERM
# Not USER: the entry point gives its rights away itself, agent and server run as users of their own. It needs them to
# read a secret that only root can read, and to hand the agent just the capabilities that it needs.
ENTRYPOINT ["/opt/tcpha/bin/python", "-P", "-m", "tcpha.container"]
CMD ["--help"]
