//! The package indexes of a build: what the host, the project and each set's requirement files say of them, and the
//! servers that ask them in the place of pip.
//!
//! pip in the sandbox is told of one index, which one of these servers is. The indexes themselves, and every login, are
//! known outside alone.

use std::io;
use std::net::TcpListener;
use std::sync::OnceLock;

use lbx_index::{
    Address, Exchange, FindLinks, Login, Password, Server, Session, Settings, Strategy, Taken, TrustedHost,
};
use lbx_plan::{At, Config, DependencySet, Hidden, IndexStrategy, PlaceOption, Plan};
use lbx_sandbox::Network;
use tokio::runtime::Handle;

use crate::base::Serves;
use crate::engine::Host;
use crate::error::Error;
use crate::project::{Project, Variable};
use crate::site::Site;

/// Who asks when only a password is known; indexes that know tokens take any name, or this one.
const TOKEN_USER: &str = "__token__";

/// What is known of the indexes before there is an image: one of these for each set.
#[derive(Debug)]
pub(crate) struct Places {
    /// None where only the image's pip knows which index there is.
    known: bool,
    settings: Settings,
    /// The archives that the set names by their addresses.
    direct: Vec<(Hidden, Address)>,
}

impl Places {
    /// Reads them, for every set of the plan.
    pub(crate) fn of(project: &Project, plan: &Plan, host: &Host, offline: bool) -> Result<Vec<Self>, Error> {
        let settings = Self::settings(&project.config, host, offline)?;
        plan.sets.iter().map(|set| Self::of_set(project, set, settings.clone())).collect()
    }

    /// All passwords that are known without asking a program, each with the host that it is for.
    pub(crate) fn passwords(&self) -> Vec<(String, Password)> {
        self.settings.passwords()
    }

    /// The same for no set in particular.
    pub(crate) fn settings(config: &Config, host: &Host, offline: bool) -> Result<Settings, Error> {
        let mut settings = host.indexes.clone();
        settings.offline = offline;
        configure(&mut settings, config, host.variable)?;
        Ok(settings)
    }

    fn of_set(project: &Project, set: &DependencySet, mut settings: Settings) -> Result<Self, Error> {
        let mut known = settings.index.is_some() || settings.no_index;
        let mut indexes: Vec<Address> = Vec::new();
        if !settings.no_index {
            indexes.extend(settings.index.take());
            indexes.append(&mut settings.extra);
        }
        for place in &set.places {
            match place {
                PlaceOption::Index(url) => {
                    known = true;
                    indexes = vec![address("--index-url", url)?];
                }
                PlaceOption::Extra(url) => indexes.push(address("--extra-index-url", url)?),
                PlaceOption::NoIndex => {
                    known = true;
                    indexes.clear();
                }
                PlaceOption::Page(url) => {
                    settings.find_links.push(FindLinks::Page(address("--find-links", url)?));
                }
                PlaceOption::Folder(folder) => {
                    settings.find_links.push(FindLinks::Folder(project.inside(folder)?));
                }
                PlaceOption::TrustedHost(host) => {
                    settings.trusted_hosts.push(TrustedHost::parse(host).map_err(Error::index)?);
                }
            }
        }
        settings.no_index = known && indexes.is_empty();
        let mut indexes = indexes.into_iter();
        settings.index = if known { indexes.next() } else { None };
        settings.extra = indexes.collect();
        // Before anything is fetched, also what is shown to pip as it is.
        set.paths.iter().try_for_each(|path| project.local(path).map(drop))?;
        let named = |url: &Hidden| Ok((url.clone(), address("the requirement", url)?));
        let direct = set.urls.iter().map(named).collect::<Result<Vec<_>, Error>>()?;
        settings.direct = direct.iter().map(|(_, address)| address.clone()).collect();
        settings.check().map_err(Error::index)?;
        Ok(Self { known, settings, direct })
    }
}

/// What the project says over what the host says.
fn configure(settings: &mut Settings, config: &Config, variable: Variable) -> Result<(), Error> {
    settings.strategy = match config.project.index_strategy {
        IndexStrategy::BestMatch => Strategy::BestMatch,
        IndexStrategy::FirstMatch => Strategy::FirstMatch,
    };
    if config.index.is_empty() {
        return Ok(());
    }
    let value = |name: &At<String>| {
        variable(name).ok_or_else(|| {
            let message = format!("the variable {} is not set, or is empty", name.value);
            let hint = Some("set it in the environment of lbx".to_owned());
            let position = config.position(name.offset);
            Error::from(lbx_plan::PlanError::from(lbx_plan::ConfigError { position, message, hint }))
        })
    };
    let mut indexes = Vec::new();
    for index in &config.index {
        let mut one = Address::parse("`url` of an index", &index.url).map_err(Error::index)?;
        if let Some(password) = &index.password_env {
            let user = index.username_env.as_ref().map(&value).transpose()?;
            let user = user.unwrap_or_else(|| TOKEN_USER.to_owned());
            one = one.with_login(Login::new(user, value(password)?));
        }
        indexes.push(one);
    }
    let mut indexes = indexes.into_iter();
    settings.index = indexes.next();
    settings.extra = indexes.collect();
    settings.no_index = false;
    Ok(())
}

fn address(what: &str, url: &Hidden) -> Result<Address, Error> {
    Address::parse(&format!("{what} {url}"), url.expose()).map_err(Error::index)
}

/// The servers of a build, one for each set.
#[derive(Debug)]
pub(crate) struct Indexes {
    sets: Vec<Set>,
    /// The index of the image's pip, once it is known.
    default: OnceLock<Address>,
    runtime: Handle,
}

#[derive(Debug)]
struct Set {
    places: Places,
    server: OnceLock<Server>,
    /// One that asks no index, for a set of which nobody has said which.
    bare: OnceLock<Server>,
}

impl Indexes {
    /// Gets ready to ask.
    pub(crate) fn new(places: Vec<Places>, runtime: Handle) -> Self {
        let set = |places| Set { places, server: OnceLock::new(), bare: OnceLock::new() };
        Self { sets: places.into_iter().map(set).collect(), default: OnceLock::new(), runtime }
    }

    /// Says which index the image's pip asks, for sets whose index nobody has named.
    pub(crate) fn tell_default(&self, default: Option<&str>) -> Result<(), Error> {
        if let Some(default) = default {
            let default = Address::parse("the index of the image's pip", default).map_err(Error::index)?;
            let _ = self.default.set(default);
        }
        Ok(())
    }

    /// Whether it is known which indexes there are for a set.
    pub(crate) fn is_known(&self, set: usize) -> bool {
        self.sets[set].places.known || self.default.get().is_some()
    }

    fn server(&self, set: usize) -> Result<&Server, Error> {
        let Set { places, server, .. } = &self.sets[set];
        if let Some(server) = server.get() {
            return Ok(server);
        }
        let mut settings = places.settings.clone();
        if !places.known {
            settings.index = Some(self.default.get().cloned().ok_or(Error::NoIndex)?);
        }
        let made = Server::new(settings).map_err(Error::index)?;
        Ok(server.get_or_init(|| made))
    }

    /// What fetches files of a lock for a set. While it is not known which indexes there are, none is asked.
    pub(crate) fn fetcher(&self, set: usize) -> Result<&Server, Error> {
        if self.is_known(set) {
            return self.server(set);
        }
        let Set { places, bare, .. } = &self.sets[set];
        let made = Server::new(places.settings.clone()).map_err(Error::index)?;
        Ok(bare.get_or_init(|| made))
    }

    /// Where the packages of a set come from, as one text: what they are can be another in each.
    pub(crate) fn identity(&self, set: usize) -> String {
        let settings = &self.sets[set].places.settings;
        let default = self.default.get().filter(|_| !self.sets[set].places.known);
        let indexes = settings.index.iter().chain(default).chain(&settings.extra);
        let links = settings.find_links.iter().map(|links| match links {
            FindLinks::Folder(path) => path.display().to_string(),
            FindLinks::Page(address) => address.safe().to_string(),
        });
        let strategy = format!("{:?}", settings.strategy);
        let all = indexes.map(|index| index.safe().to_string()).chain([strategy]).chain(links);
        all.collect::<Vec<_>>().join("\n")
    }

    /// Where work is done that waits for the network.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Begins to serve the indexes of a set. What is built is exchanged for source distributions, if there is anybody to
    /// build it.
    pub(crate) fn serve(&self, set: usize, exchange: Option<Exchange>) -> Result<Serving<'_>, Error> {
        let (server, places) = (self.server(set)?, &self.sets[set].places);
        let direct = &places.settings.direct;
        let session = match exchange {
            Some(exchange) => server.exchanging(direct, exchange),
            None => server.session(direct),
        };
        self.begin(server, places, session)
    }

    /// Begins to refuse all that is asked for, for a set.
    pub(crate) fn refuse(&self, set: usize) -> Result<Serving<'_>, Error> {
        let server = self.server(set)?;
        self.begin(server, &self.sets[set].places, server.refusing())
    }

    fn begin<'i>(
        &'i self,
        server: &'i Server,
        places: &'i Places,
        session: Result<Session, lbx_index::Error>,
    ) -> Result<Serving<'i>, Error> {
        let session = session.map_err(Error::index)?;
        // Where the sandbox has no network of its own, this is the socket. Elsewhere it keeps the number of its port from
        // being anybody else's until the sandbox has one that is called so.
        let own = TcpListener::bind("127.0.0.1:0")?;
        let port = own.local_addr()?.port();
        Ok(Serving { indexes: self, server, places, session, own, port })
    }
}

/// Indexes that are being served to one pip.
#[derive(Debug)]
pub(crate) struct Serving<'i> {
    indexes: &'i Indexes,
    server: &'i Server,
    places: &'i Places,
    session: Session,
    own: TcpListener,
    port: u16,
}

impl Serves for Serving<'_> {
    fn listen(&self, listener: Option<TcpListener>) -> io::Result<()> {
        // The server's tasks belong to the runtime, and this thread does not.
        let _runtime = self.indexes.runtime.enter();
        self.server.listen(match listener {
            Some(listener) => listener,
            None => self.own.try_clone()?,
        })
    }

    fn is_exchanging(&self) -> bool {
        self.session.is_exchanging()
    }
}

impl Serving<'_> {
    /// What the sandbox can reach, where that can be kept to this.
    pub(crate) fn network(&self, site: &Site) -> Network {
        if site.isolation.claims.network_served { Network::Served(self.port) } else { Network::Host }
    }

    /// The address of the one index that pip is told of.
    pub(crate) fn index_url(&self) -> String {
        format!("{}{}", self.origin(), self.session.index_path())
    }

    /// Variables that send whoever wants to reach anything else here, where it is refused and written down.
    pub(crate) fn proxy_environment(&self) -> Vec<(String, String)> {
        let proxies = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"];
        let proxies = proxies.map(|name| (name.to_owned(), self.proxy_url()));
        let none = ["no_proxy", "NO_PROXY"].map(|name| (name.to_owned(), "127.0.0.1".to_owned()));
        proxies.into_iter().chain(none).collect()
    }

    fn proxy_url(&self) -> String {
        // Some clients pass on a login only when it has both parts.
        format!("http://lbx:{}@127.0.0.1:{}", self.session.secret(), self.port)
    }

    /// The address at which pip finds an archive that a requirement names by another one.
    pub(crate) fn direct_url(&self, url: &Hidden) -> Option<String> {
        let (_, address) = self.places.direct.iter().find(|(known, _)| known == url)?;
        let path = self.session.direct_path(address)?;
        // A name that the user wrote there is for pip; the rest of it was looked at here.
        let fragment = url.expose().split_once('#').map_or("", |(_, fragment)| fragment);
        let egg = fragment.split('&').find(|pair| pair.starts_with("egg="));
        let separator = if path.contains('#') { '&' } else { '#' };
        let egg = egg.map(|egg| format!("{separator}{egg}")).unwrap_or_default();
        Some(format!("{}{path}{egg}", self.origin()))
    }

    /// A text of pip's, with the indexes in the place of the one that it was told of, and without the secret.
    pub(crate) fn for_people(&self, text: &str) -> String {
        if !text.contains("127.0.0.1") {
            return self.session.redact(text);
        }
        let base = format!("{}/{}/", self.origin(), self.session.secret());
        let text = text.replace(&self.index_url(), &self.names()).replace(&base, "lbx:");
        self.session.redact(&text)
    }

    /// What there is, for people.
    fn names(&self) -> String {
        let settings = &self.places.settings;
        let links = settings.find_links.iter().map(|links| match links {
            FindLinks::Folder(path) => path.display().to_string(),
            FindLinks::Page(address) => address.safe().to_string(),
        });
        let indexes = settings.index.iter().chain(&settings.extra).map(|address| address.safe().to_string());
        let names: Vec<String> = indexes.chain(links).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What was taken until now, and refused, also to those who did not say that they belong here: nobody else can reach
    /// a server that is in the sandbox.
    pub(crate) fn taken(&self) -> Taken {
        let mut taken = self.session.taken();
        taken.refused.extend(self.server.attempts());
        taken
    }
}
