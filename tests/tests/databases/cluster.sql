-- Roles, databases and what belongs to neither. Run as the superuser, connected to the database postgres.
SET password_encryption = 'scram-sha-256';
CREATE ROLE "app owner" LOGIN CREATEDB PASSWORD 'scram; with ''quotes'' and \ backslashes';
SET password_encryption = 'md5';
CREATE ROLE legacy LOGIN PASSWORD 'md5' VALID UNTIL '2031-02-03 04:05:06+00' CONNECTION LIMIT 7;
RESET password_encryption;
CREATE ROLE expired LOGIN VALID UNTIL '2001-01-01' NOINHERIT;
CREATE ROLE forever LOGIN VALID UNTIL 'infinity' BYPASSRLS REPLICATION CREATEROLE;
CREATE ROLE "user";
CREATE ROLE "select";
CREATE ROLE "Größe ""x"" 'y' \ $1 % ; --";
CREATE ROLE "line
break";
CREATE ROLE readers;
CREATE ROLE chain_a;
CREATE ROLE chain_b;
CREATE ROLE chain_c;
GRANT readers TO legacy, "select";
GRANT readers TO "app owner" WITH ADMIN OPTION;
SET ROLE "app owner";
GRANT readers TO expired;
RESET ROLE;
GRANT pg_read_all_data TO "Größe ""x"" 'y' \ $1 % ; --";
COMMENT ON ROLE "Größe ""x"" 'y' \ $1 % ; --" IS E'a; comment\nof two lines -- with \\ backslashes\n\\connect nowhere\n$$ and ''quotes''';
COMMENT ON ROLE "line
break" IS E';\n';
ALTER ROLE "app owner" SET search_path TO '$user', 'od"d, schema', 'public';
ALTER ROLE legacy SET statement_timeout = '3s';
ALTER ROLE legacy SET my.setting = 'it''s "quoted", \ and = said';
ALTER ROLE ALL SET idle_in_transaction_session_timeout = '7h';
-- What the superuser itself runs with must hinder neither the backup nor the restore.
ALTER ROLE postgres SET statement_timeout = '600s';
ALTER ROLE postgres SET lock_timeout = '500s';
ALTER ROLE postgres SET row_security = off;
ALTER ROLE postgres SET bytea_output = 'escape';
ALTER ROLE postgres SET datestyle = 'German, DMY';
ALTER ROLE postgres PASSWORD 'the superuser''s own';
GRANT SET ON PARAMETER log_min_messages TO legacy WITH GRANT OPTION;
GRANT ALTER SYSTEM ON PARAMETER wal_compression TO readers;

\connect template1
CREATE SCHEMA shared_by_all;
CREATE TABLE shared_by_all.greeting (word text);
INSERT INTO shared_by_all.greeting VALUES ('every new database has this');
COMMENT ON DATABASE template1 IS 'a template with objects of its own';
ALTER DATABASE template1 SET work_mem = '5MB';

\connect postgres
CREATE DATABASE "Größe ""1"" $x 'y' % \ z" OWNER "app owner" CONNECTION LIMIT 50;
CREATE DATABASE "postgres://x" OWNER "user";
CREATE DATABASE "a=b" OWNER "select";
CREATE DATABASE "-dash";
CREATE DATABASE "select";
CREATE DATABASE "line
break";
CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C';
CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C';
CREATE DATABASE japanese TEMPLATE template0 ENCODING 'EUC_JP' LOCALE 'C';
CREATE DATABASE icu TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'de-u-co-phonebk';
CREATE DATABASE empty TEMPLATE template0;
CREATE DATABASE functions;
CREATE DATABASE no_more_sessions CONNECTION LIMIT 0;
CREATE DATABASE read_only;
CREATE DATABASE mould IS_TEMPLATE true;
CREATE DATABASE closed;
ALTER DATABASE closed ALLOW_CONNECTIONS false;

COMMENT ON DATABASE "a=b" IS E'a comment\nof ''two'' lines; with \\';
ALTER DATABASE "a=b" SET search_path TO '$user', 'od"d, schema', '', 'public';
ALTER DATABASE "a=b" SET my.setting = 'it''s "quoted", \ and = said';
ALTER DATABASE "a=b" SET temp_tablespaces = '';
ALTER ROLE legacy IN DATABASE "a=b" SET search_path TO 'x''y', "Z";
ALTER ROLE "Größe ""x"" 'y' \ $1 % ; --" IN DATABASE "Größe ""1"" $x 'y' % \ z" SET work_mem = '12MB';
ALTER DATABASE read_only SET default_transaction_read_only = on;
ALTER DATABASE read_only SET statement_timeout = '1ms';
ALTER DATABASE read_only SET lock_timeout = '1ms';
ALTER DATABASE read_only SET row_security = off;
ALTER DATABASE read_only SET search_path = 'nowhere';
ALTER DATABASE read_only SET client_encoding = 'LATIN1';
ALTER DATABASE read_only SET default_tablespace = 'pg_default';
ALTER DATABASE read_only SET standard_conforming_strings = off;
ALTER DATABASE read_only SET check_function_bodies = on;
ALTER DATABASE read_only SET session_replication_role = 'replica';
ALTER DATABASE read_only SET transform_null_equals = on;
ALTER ROLE postgres IN DATABASE read_only SET default_transaction_isolation = 'serializable';

REVOKE ALL ON DATABASE "postgres://x" FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE "postgres://x" TO chain_a WITH GRANT OPTION;
SET ROLE chain_a;
GRANT CONNECT ON DATABASE "postgres://x" TO chain_b WITH GRANT OPTION;
SET ROLE chain_b;
GRANT CONNECT ON DATABASE "postgres://x" TO chain_c, "line
break";
RESET ROLE;
REVOKE CONNECT ON DATABASE icu FROM PUBLIC;
REVOKE ALL ON DATABASE "-dash" FROM PUBLIC, postgres;

\connect functions
CREATE PROCEDURE say(INOUT word text) LANGUAGE plpgsql AS $body$ BEGIN word := '$$' || word; END $body$;
CREATE FUNCTION add(a int, b int DEFAULT 2) RETURNS int LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE BEGIN ATOMIC SELECT a + b; END;
DROP SCHEMA shared_by_all CASCADE;

\connect mould
CREATE TABLE cast_from_it (n int);

\connect "dbname='-dash'"
CREATE TABLE dash (n int);
INSERT INTO dash VALUES (1);

\connect "dbname='postgres://x'"
CREATE TABLE uri (n int);
INSERT INTO uri SELECT generate_series(1, 3);
ALTER TABLE uri OWNER TO "user";

\connect "dbname='select'"
CREATE TABLE "table" ("column" int, "select" text);
INSERT INTO "table" VALUES (1, 'from');

\connect no_more_sessions
CREATE TABLE kept (n int);
INSERT INTO kept VALUES (1);

\connect read_only
SET default_transaction_read_only = off;
SET statement_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
CREATE TABLE public."Ünreadable in LATIN1 €" (word text CHECK (word <> 'back\slash'));
INSERT INTO public."Ünreadable in LATIN1 €" SELECT 'ключ \ ' || i FROM generate_series(1, 2000) i;
CREATE TABLE public.guarded (owner text);
INSERT INTO public.guarded VALUES ('a'), ('b');
ALTER TABLE public.guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.guarded FORCE ROW LEVEL SECURITY;
CREATE POLICY nobody ON public.guarded USING (false);
CREATE TABLE public.parent (n int PRIMARY KEY);
CREATE TABLE public.child (n int REFERENCES public.parent);
INSERT INTO public.parent VALUES (1);
INSERT INTO public.child VALUES (1);

\connect icu
SET client_encoding = 'UTF8';
CREATE COLLATION german (provider = icu, locale = 'de-u-co-phonebk');
CREATE COLLATION ignores_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE names (name text COLLATE german UNIQUE, login text COLLATE ignores_case PRIMARY KEY, c text COLLATE "C");
INSERT INTO names VALUES ('Öl', 'OEL', 'Ö'), ('Ofen', 'ofen', 'o'), ('Äpfel', 'Ä', 'Ä');
CREATE INDEX ON names (upper(name) COLLATE "de-x-icu");
COMMENT ON COLLATION german IS 'as in the phone book';
