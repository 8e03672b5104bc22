#!/bin/sh
# Puts the jars of Apache Kafka where the tests look for them. Does nothing when they are there already.
# Needs Java 17 and Maven, which takes its repositories from its own settings.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
jars=${OVERDRIVE_KAFKA_JARS:-${XDG_CACHE_HOME:-$HOME/.cache}/overdrive/kafka}
done_mark=$jars/.fetched

if [ -f "$done_mark" ] && cmp -s "$done_mark" "$here/kafka/pom.xml"; then
    exit 0
fi
for tool in java mvn; do
    command -v "$tool" >/dev/null || { echo "fetch-kafka: $tool is missing; install a Java 17 runtime and Maven" >&2; exit 1; }
done

mkdir -p "$jars"
mvn -q -B -f "$here/kafka/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$jars"
# Written last, so that a fetch broken off halfway is done again.
cp "$here/kafka/pom.xml" "$done_mark"
