# One image for every role; docker-compose.yml says which command each container runs.
FROM python:3.13-slim-bookworm

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /srv/postroad

COPY requirements.txt ./
RUN pip install -r requirements.txt

COPY manage.py ./
COPY config config
COPY campaigns campaigns
COPY mailer mailer
COPY deliverability deliverability

# The journals' folder exists in the image with the right owner, so that a new volume has it too.
RUN useradd --system --uid 10001 --home-dir /srv/postroad postroad \
    && mkdir -p /var/lib/postroad/journals \
    && chown -R postroad /var/lib/postroad
USER postroad

ENV POSTROAD_VAR=/var/lib/postroad \
    POSTROAD_JOURNALS=/var/lib/postroad/journals \
    DJANGO_SETTINGS_MODULE=config.settings \
    REMAP_SIGTERM=SIGQUIT
