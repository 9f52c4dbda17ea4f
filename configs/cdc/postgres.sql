-- Tables whose changes IntelGraph captures from PostgreSQL, by Debezium. Run it in the source's database.
--
-- Each row is one fact: its key is (tenant, case, type, id). A row that is deleted is a fact that is deleted.

CREATE TABLE entities (
    tenant     text NOT NULL,
    "case"     text NOT NULL,
    type       text NOT NULL,
    id         text NOT NULL,
    props      jsonb,
    event_time timestamptz,
    PRIMARY KEY (tenant, "case", type, id)
);

CREATE TABLE relationships (
    tenant     text NOT NULL,
    "case"     text NOT NULL,
    type       text NOT NULL,
    id         text NOT NULL,
    from_type  text NOT NULL,
    from_id    text NOT NULL,
    to_type    text NOT NULL,
    to_id      text NOT NULL,
    props      jsonb,
    event_time timestamptz,
    PRIMARY KEY (tenant, "case", type, id)
);

CREATE TABLE claims (
    tenant       text NOT NULL,
    "case"       text NOT NULL,
    type         text NOT NULL,
    id           text NOT NULL,
    subject_type text NOT NULL,
    subject_id   text NOT NULL,
    predicate    text NOT NULL,
    value        jsonb,
    confidence   double precision,
    props        jsonb,
    event_time   timestamptz,
    PRIMARY KEY (tenant, "case", type, id)
);

-- Without it, a change says only the key of what was before, and large values that did not change are missing.
ALTER TABLE entities REPLICA IDENTITY FULL;
ALTER TABLE relationships REPLICA IDENTITY FULL;
ALTER TABLE claims REPLICA IDENTITY FULL;

-- Debezium writes its watermarks here when tables are read again while changes go on (incremental snapshots).
CREATE TABLE intelgraph_signal (id varchar(64) PRIMARY KEY, type varchar(32) NOT NULL, data varchar(2048));

-- A row that the connector touches every few seconds, so that the database may forget its log while nothing else changes.
CREATE TABLE intelgraph_heartbeat (id integer PRIMARY KEY, at timestamptz);

CREATE PUBLICATION intelgraph FOR TABLE entities, relationships, claims, intelgraph_signal, intelgraph_heartbeat;
