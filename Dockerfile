# A slim image of the bundled server. docs/operations.md says how to run it (it needs --shm-size).
FROM python:3.12-slim

RUN useradd --create-home --uid 10001 tandem
WORKDIR /opt/tandem
COPY requirements.lock ./
RUN pip install --no-cache-dir -r requirements.lock
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir --no-deps --no-build-isolation .
COPY configs ./configs
RUN mkdir data && chown tandem data

USER tandem
VOLUME /opt/tandem/data
EXPOSE 8010
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["tandem", "check"]
# Run it with --init, so that what a server of your own leaves behind is reaped.
CMD ["tandem", "up"]
