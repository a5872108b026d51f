-- Databases whose encoding is not UTF-8; this file is UTF-8, and the server converts it.
\connect latin
SET client_encoding = 'UTF8';
CREATE SCHEMA "schön";
CREATE TABLE "schön"."größe ""ß""" ("länge" text, "maß" numeric);
INSERT INTO "schön"."größe ""ß""" SELECT 'ä' || i, i / 7.0 FROM generate_series(1, 50) i;
CREATE VIEW "schön"."übersicht" AS SELECT count(*) AS "zähler" FROM "schön"."größe ""ß""";
CREATE SEQUENCE "zähler";
SELECT nextval('"zähler"');
-- Its name, read as UTF-8, would be another one.
CREATE TABLE "Ã¶" (n int);
INSERT INTO "Ã¶" VALUES (1), (2);
CREATE TABLE "ö" (n int);
INSERT INTO "ö" VALUES (1);
COMMENT ON TABLE "ö" IS 'ein Umlaut';

\connect japanese
SET client_encoding = 'UTF8';
CREATE TABLE "表" ("名" text);
INSERT INTO "表" VALUES ('日本語'), ('カタカナ'), ('ソ能表');
COMMENT ON TABLE "表" IS '表の説明';
CREATE FUNCTION "関数"() RETURNS text LANGUAGE sql AS $$ SELECT '値'::text $$;

\connect ascii
SET client_encoding = 'SQL_ASCII';
SET escape_string_warning = off;
-- Bytes of no encoding at all, in a value and in a name.
CREATE TABLE raw (word text);
INSERT INTO raw VALUES (E'\xff\xfe\x80'), (E'caf\xe9'), ('größe');
DO $$ BEGIN EXECUTE 'CREATE TABLE "caf' || E'\xe9' || '" (n int)'; EXECUTE 'INSERT INTO "caf' || E'\xe9' || '" VALUES (1), (2)'; END $$;
CREATE TABLE "größe" (n int);
INSERT INTO "größe" VALUES (1);
