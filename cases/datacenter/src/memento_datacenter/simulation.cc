// Message senders that share a bottleneck, packet by packet, with ns-3.
//
//     senders, one application each ──┐
//                                     ├── router A ══ bottleneck ══ router B ── receiver
//     cross traffic ──────────────────┘
//
// Every link is full duplex with the same rate and delay; every transmit queue is drop-tail. An
// application draws message sizes from an empirical distribution, waits exponential times between
// them (a Poisson process) and sends all of them over one TCP connection. A packet with payload is
// stamped when its sender's device gets it to send; when the receiver's device has it, a record is
// written. The records go to a file, 16 bytes each, little endian:
//
//     int64 time of arrival [ns], uint32 delay [ns], uint16 size on the link [bytes], uint16 application
//
// and one JSON object with the counters of the run goes to standard output. The program knows no
// file names, defaults or units but what its caller passes: see simulate.py.

#include "ns3/applications-module.h"
#include "ns3/core-module.h"
#include "ns3/internet-module.h"
#include "ns3/network-module.h"
#include "ns3/point-to-point-module.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

using namespace ns3;

namespace
{

constexpr uint16_t TCP_PORT = 9000;
constexpr uint16_t UDP_PORT = 9001;
// UDP, IP and link headers of a packet of the cross traffic.
constexpr uint32_t UDP_OVERHEAD = 8 + 20 + 2;

struct Counters
{
    uint64_t messages = 0;
    uint64_t offered = 0; // bytes of all messages that arrived, sent or not
    uint64_t refused = 0; // messages that did not fit into the send buffer
    uint64_t refusedBytes = 0;
    uint64_t lostConnections = 0;
    uint64_t drops = 0; // packets that found a transmit queue full
    uint64_t stamped = 0;
    uint64_t received = 0;
    uint64_t crossSent = 0;
    double active = 0; // seconds from start to end, summed over applications
};

Counters g_count;
std::ofstream g_records;

// When and by which application a packet was handed to its sender's device.
class Stamp : public Tag
{
  public:
    static TypeId GetTypeId()
    {
        static TypeId tid = TypeId("Stamp").SetParent<Tag>().AddConstructor<Stamp>();
        return tid;
    }

    TypeId GetInstanceTypeId() const override
    {
        return GetTypeId();
    }

    uint32_t GetSerializedSize() const override
    {
        return 10;
    }

    void Serialize(TagBuffer buffer) const override
    {
        buffer.WriteU64(sent);
        buffer.WriteU16(application);
    }

    void Deserialize(TagBuffer buffer) override
    {
        sent = buffer.ReadU64();
        application = buffer.ReadU16();
    }

    void Print(std::ostream& out) const override
    {
        out << "application " << application << " sent " << sent << " ns";
    }

    uint64_t sent = 0;
    uint16_t application = 0;
};

NS_OBJECT_ENSURE_REGISTERED(Stamp);

// The distribution of message sizes: inverse of the table, with or without lines between its rows.
class MessageSizes
{
  public:
    MessageSizes(const std::string& path, bool interpolate)
        : m_sizes(CreateObject<EmpiricalRandomVariable>())
    {
        m_sizes->SetInterpolate(interpolate);
        std::ifstream file(path);
        double size;
        double cumulative;
        while (file >> size >> cumulative)
        {
            m_sizes->CDF(size, cumulative);
        }
        NS_ABORT_MSG_UNLESS(file.eof(), "cannot read message sizes from " << path);
    }

    void UseStream(int64_t stream)
    {
        m_sizes->SetStream(stream);
    }

    uint64_t Draw()
    {
        return std::max<uint64_t>(1, static_cast<uint64_t>(m_sizes->GetValue() + 0.5));
    }

  private:
    Ptr<EmpiricalRandomVariable> m_sizes;
};

// Messages of random size at random times over one TCP connection.
class MessageSource : public Application
{
  public:
    // The sizes are this application's own: a copy would share its random stream.
    MessageSource(const Address& receiver, MessageSizes&& sizes, double meanGap, bool buffered)
        : m_receiver(receiver),
          m_sizes(std::move(sizes)),
          m_gap(CreateObject<ExponentialRandomVariable>()),
          m_buffered(buffered)
    {
        m_gap->SetAttribute("Mean", DoubleValue(meanGap));
    }

    // Two streams: one for gaps, one for sizes.
    void UseStreams(int64_t first)
    {
        m_gap->SetStream(first);
        m_sizes.UseStream(first + 1);
    }

  private:
    void StartApplication() override
    {
        m_socket = Socket::CreateSocket(GetNode(), TcpSocketFactory::GetTypeId());
        m_socket->Bind();
        m_socket->SetConnectCallback(MakeNullCallback<void, Ptr<Socket>>(),
                                     MakeCallback(&MessageSource::Lost, this));
        m_socket->SetCloseCallbacks(MakeNullCallback<void, Ptr<Socket>>(),
                                    MakeCallback(&MessageSource::Lost, this));
        if (m_buffered)
        {
            m_socket->SetSendCallback(MakeCallback(&MessageSource::Room, this));
        }
        m_socket->Connect(m_receiver);
        Wait();
    }

    void StopApplication() override
    {
        m_next.Cancel();
    }

    void Wait()
    {
        m_next = Simulator::Schedule(Seconds(m_gap->GetValue()), &MessageSource::Arrive, this);
    }

    void Arrive()
    {
        const uint64_t size = m_sizes.Draw();
        ++g_count.messages;
        g_count.offered += size;
        if (m_buffered)
        {
            m_backlog += size;
            Fill();
        }
        else if (m_socket->Send(Create<Packet>(static_cast<uint32_t>(size))) < 0)
        {
            ++g_count.refused;
            g_count.refusedBytes += size;
        }
        Wait();
    }

    void Room(Ptr<Socket>, uint32_t)
    {
        Fill();
    }

    // Hands over as much of what waits as the send buffer takes.
    void Fill()
    {
        while (m_backlog > 0)
        {
            const uint64_t size = std::min<uint64_t>(m_backlog, m_socket->GetTxAvailable());
            if (size == 0)
            {
                return;
            }
            if (m_socket->Send(Create<Packet>(static_cast<uint32_t>(size))) < 0)
            {
                return;
            }
            m_backlog -= size;
        }
    }

    void Lost(Ptr<Socket>)
    {
        ++g_count.lostConnections;
    }

    Address m_receiver;
    MessageSizes m_sizes;
    Ptr<ExponentialRandomVariable> m_gap;
    bool m_buffered;
    Ptr<Socket> m_socket;
    EventId m_next;
    uint64_t m_backlog = 0;
};

// Packets of one size at a constant rate over UDP.
class ConstantRate : public Application
{
  public:
    ConstantRate(const Address& receiver, double bitsPerSecond, uint32_t sizeOnLink)
        : m_receiver(receiver),
          m_gap(Seconds(sizeOnLink * 8 / bitsPerSecond)),
          m_payload(sizeOnLink - UDP_OVERHEAD)
    {
    }

  private:
    void StartApplication() override
    {
        m_socket = Socket::CreateSocket(GetNode(), UdpSocketFactory::GetTypeId());
        m_socket->Bind();
        m_socket->Connect(m_receiver);
        Send();
    }

    void StopApplication() override
    {
        m_next.Cancel();
    }

    void Send()
    {
        m_socket->Send(Create<Packet>(m_payload));
        ++g_count.crossSent;
        m_next = Simulator::Schedule(m_gap, &ConstantRate::Send, this);
    }

    Address m_receiver;
    Time m_gap;
    uint32_t m_payload;
    Ptr<Socket> m_socket;
    EventId m_next;
};

bool
HasPayload(Ptr<const Packet> packet)
{
    Ptr<Packet> rest = packet->Copy();
    PppHeader link;
    rest->RemoveHeader(link);
    Ipv4Header ip;
    rest->RemoveHeader(ip);
    TcpHeader tcp;
    rest->RemoveHeader(tcp);
    return rest->GetSize() > 0;
}

void
Sent(uint16_t application, Ptr<const Packet> packet)
{
    if (HasPayload(packet))
    {
        Stamp stamp;
        stamp.sent = Simulator::Now().GetNanoSeconds();
        stamp.application = application;
        packet->AddPacketTag(stamp);
        ++g_count.stamped;
    }
}

void
Received(Ptr<const Packet> packet)
{
    Stamp stamp;
    if (!packet->PeekPacketTag(stamp))
    {
        return;
    }
    const int64_t now = Simulator::Now().GetNanoSeconds();
    const auto delay = static_cast<uint32_t>(now - static_cast<int64_t>(stamp.sent));
    const auto size = static_cast<uint16_t>(packet->GetSize());
    char record[16];
    std::memcpy(record, &now, 8);
    std::memcpy(record + 8, &delay, 4);
    std::memcpy(record + 12, &size, 2);
    std::memcpy(record + 14, &stamp.application, 2);
    g_records.write(record, sizeof record);
    ++g_count.received;
}

void
Dropped(Ptr<const Packet>)
{
    ++g_count.drops;
}

// Joins two nodes by a link with its own /30 network.
NetDeviceContainer
Join(PointToPointHelper& link, Ipv4AddressHelper& addresses, Ptr<Node> one, Ptr<Node> other)
{
    NetDeviceContainer devices = link.Install(one, other);
    addresses.Assign(devices);
    addresses.NewNetwork();
    for (uint32_t i = 0; i < devices.GetN(); ++i)
    {
        devices.Get(i)->TraceConnectWithoutContext("MacTxDrop", MakeCallback(&Dropped));
    }
    return devices;
}

} // namespace

int
main(int argc, char* argv[])
{
    std::string sizes;
    std::string out;
    bool interpolate = false;
    bool buffered = true;
    uint32_t senders = 0;
    uint32_t queue = 0;
    uint32_t segment = 0;
    uint32_t crossSize = 0;
    uint32_t seed = 1;
    uint64_t run = 0;
    uint64_t draw = 0;
    double meanGap = 0;
    double linkRate = 0;
    double linkDelay = 0;
    double crossRate = 0;
    double start = 0;
    double startWindow = 0;
    double end = 0;

    CommandLine command;
    command.AddValue("sizes", "file with a size and its cumulative probability on each line", sizes);
    command.AddValue("interpolate", "whether sizes between the rows occur", interpolate);
    command.AddValue("meanGap", "mean time between messages of an application [s]", meanGap);
    command.AddValue("senders", "number of applications", senders);
    command.AddValue("buffered", "whether what does not fit into the send buffer waits", buffered);
    command.AddValue("linkRate", "of every link [bit/s]", linkRate);
    command.AddValue("linkDelay", "of every link [s]", linkDelay);
    command.AddValue("queue", "packets in every transmit queue", queue);
    command.AddValue("segment", "TCP payload of a packet [bytes]", segment);
    command.AddValue("crossRate", "of the cross traffic, headers included [bit/s]", crossRate);
    command.AddValue("crossSize", "of its packets, headers included [bytes]", crossSize);
    command.AddValue("start", "the first applications and the cross traffic start [s]", start);
    command.AddValue("startWindow", "applications start so long after that at most [s]", startWindow);
    command.AddValue("end", "of the simulation [s]", end);
    command.AddValue("seed", "of all random streams", seed);
    command.AddValue("run", "number of the substream", run);
    command.AddValue("out", "file for the records", out);
    command.AddValue("draw", "only draw this many sizes and print them", draw);
    command.Parse(argc, argv);

    RngSeedManager::SetSeed(seed);
    RngSeedManager::SetRun(run);
    if (draw > 0)
    {
        MessageSizes law(sizes, interpolate);
        law.UseStream(1);
        for (uint64_t i = 0; i < draw; ++i)
        {
            std::printf("%llu\n", static_cast<unsigned long long>(law.Draw()));
        }
        return 0;
    }

    // TCP as ns-3 ships it since 3.34, written down so that a later default changes nothing.
    Config::SetDefault("ns3::TcpL4Protocol::SocketType", StringValue("ns3::TcpCubic"));
    Config::SetDefault("ns3::TcpSocket::SegmentSize", UintegerValue(segment));
    Config::SetDefault("ns3::TcpSocket::SndBufSize", UintegerValue(131072));
    Config::SetDefault("ns3::TcpSocket::RcvBufSize", UintegerValue(131072));
    Config::SetDefault("ns3::TcpSocket::InitialCwnd", UintegerValue(10));
    Config::SetDefault("ns3::TcpSocket::DelAckCount", UintegerValue(2));
    Config::SetDefault("ns3::TcpSocket::DelAckTimeout", TimeValue(MilliSeconds(200)));
    Config::SetDefault("ns3::TcpSocket::TcpNoDelay", BooleanValue(true));
    Config::SetDefault("ns3::TcpSocketBase::Sack", BooleanValue(true));
    Config::SetDefault("ns3::TcpSocketBase::Timestamp", BooleanValue(true));
    Config::SetDefault("ns3::TcpSocketBase::WindowScaling", BooleanValue(true));
    Config::SetDefault("ns3::TcpSocketBase::MinRto", TimeValue(Seconds(1)));

    Ptr<Node> routerA = CreateObject<Node>();
    Ptr<Node> routerB = CreateObject<Node>();
    Ptr<Node> receiver = CreateObject<Node>();
    Ptr<Node> crossSender = CreateObject<Node>();
    NodeContainer hosts;
    hosts.Create(senders);
    InternetStackHelper stack;
    stack.Install(NodeContainer(routerA, routerB, receiver, crossSender));
    stack.Install(hosts);

    PointToPointHelper link;
    link.SetDeviceAttribute("DataRate", DataRateValue(DataRate(static_cast<uint64_t>(linkRate))));
    link.SetChannelAttribute("Delay", TimeValue(Seconds(linkDelay)));
    link.SetQueue("ns3::DropTailQueue", "MaxSize", QueueSizeValue(QueueSize(PACKETS, queue)));
    // Without flow control no queue discipline is put above the device: its queue is the only one.
    link.DisableFlowControl();
    Ipv4AddressHelper addresses("10.0.0.0", "255.255.255.252");
    Join(link, addresses, routerA, routerB);
    NetDeviceContainer last = Join(link, addresses, routerB, receiver);
    Join(link, addresses, crossSender, routerA);
    last.Get(1)->TraceConnectWithoutContext("MacRx", MakeCallback(&Received));

    const Ipv4Address there = receiver->GetObject<Ipv4>()->GetAddress(1, 0).GetLocal();
    const InetSocketAddress tcp(there, TCP_PORT);
    const InetSocketAddress udp(there, UDP_PORT);
    Ptr<UniformRandomVariable> starts = CreateObject<UniformRandomVariable>();
    starts->SetStream(0);
    for (uint32_t i = 0; i < senders; ++i)
    {
        NetDeviceContainer access = Join(link, addresses, hosts.Get(i), routerA);
        access.Get(0)->TraceConnectWithoutContext(
            "MacTx",
            MakeBoundCallback(&Sent, static_cast<uint16_t>(i)));
        auto source = CreateObject<MessageSource>(tcp,
                                                  MessageSizes(sizes, interpolate),
                                                  meanGap,
                                                  buffered);
        source->UseStreams(1 + 2 * static_cast<int64_t>(i));
        const double from = starts->GetValue(start, start + startWindow);
        g_count.active += end - from;
        source->SetStartTime(Seconds(from));
        source->SetStopTime(Seconds(end));
        hosts.Get(i)->AddApplication(source);
    }
    if (crossRate > 0)
    {
        auto cross = CreateObject<ConstantRate>(udp, crossRate, crossSize);
        cross->SetStartTime(Seconds(start));
        cross->SetStopTime(Seconds(end));
        crossSender->AddApplication(cross);
    }
    PacketSinkHelper("ns3::TcpSocketFactory", tcp).Install(receiver);
    PacketSinkHelper("ns3::UdpSocketFactory", udp).Install(receiver);
    Ipv4GlobalRoutingHelper::PopulateRoutingTables();

    g_records.open(out, std::ios::binary);
    Simulator::Stop(Seconds(end));
    Simulator::Run();
    const uint64_t events = Simulator::GetEventCount();
    Simulator::Destroy();
    g_records.close();
    NS_ABORT_MSG_IF(g_records.fail(), "cannot write records to " << out);

    std::printf("{\"messages\": %llu, \"offered_bytes\": %llu, \"refused\": %llu, "
                "\"refused_bytes\": %llu, \"active_seconds\": %.9f, \"lost_connections\": %llu, "
                "\"drops\": %llu, \"stamped\": %llu, \"packets\": %llu, \"cross_packets\": %llu, "
                "\"events\": %llu}\n",
                static_cast<unsigned long long>(g_count.messages),
                static_cast<unsigned long long>(g_count.offered),
                static_cast<unsigned long long>(g_count.refused),
                static_cast<unsigned long long>(g_count.refusedBytes),
                g_count.active,
                static_cast<unsigned long long>(g_count.lostConnections),
                static_cast<unsigned long long>(g_count.drops),
                static_cast<unsigned long long>(g_count.stamped),
                static_cast<unsigned long long>(g_count.received),
                static_cast<unsigned long long>(g_count.crossSent),
                static_cast<unsigned long long>(events));
    return 0;
}
