#!/bin/sh
# Installs this device's bundle: run it as root where cpsl-edge is installed in /opt/cpsl.
set -eu
cd "$(dirname "$0")"
if [ ! -x /opt/cpsl/bin/cpsl-agent ]; then
  echo "/opt/cpsl/bin/cpsl-agent is not there: install cpsl-edge into /opt/cpsl first" >&2
  exit 1
fi
id cpsl > /dev/null 2>&1 || useradd --system --home-dir /var/lib/cpsl --shell /usr/sbin/nologin cpsl
install -d -m 700 /etc/cpsl
install -m 600 agent.toml authority.pem certificate.pem key.pem /etc/cpsl/
install -m 644 cpsl-agent.service /etc/systemd/system/
systemctl daemon-reload
systemctl enable cpsl-agent
systemctl restart cpsl-agent
